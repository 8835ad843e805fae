"""What one table of scores is made of: inputs, model, shards."""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from keras_sspcab.checks import standardize_int
from keras_sspcab.runs.files import sha256_of

# Files beside a SavedModel that do not change what it computes.
_BESIDE = ("parity.json", "MANIFEST.sha256", "assets.extra")


class ScorePlan(BaseModel):
    """What must stay the same from a start to the end, however often stopped.

    Attributes:
        num_inputs: Number of images.
        inputs_checksum: SHA-256 of their paths.
        model_checksum: SHA-256 of the model.
        image_size: Height and width that images are resized to.
        channels: 1 for gray, 3 for color.
        shard_size: Images in a shard; the last may have fewer.
        maps: Whether anomaly maps are written.
        format: Version of this record.

    Example:
    >>> plan = ScorePlan.make(["a.png", "b.png", "c.png"], "0", (8, 8), 1, 2)
    >>> plan.num_shards, plan.bounds(1)
    (2, (2, 3))
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_inputs: int
    inputs_checksum: str
    model_checksum: str
    image_size: tuple[int, int]
    channels: int
    shard_size: int
    maps: bool
    format: Literal[1] = 1

    @classmethod
    def make(
        cls,
        inputs: Sequence[str],
        model_checksum: str,
        image_size: Sequence[int],
        channels: int,
        shard_size: int = 1000,
        maps: bool = False,
    ) -> "ScorePlan":
        """Returns the plan for a list of inputs.

        Raises:
            ValueError: If there are none, one is there twice, or `shard_size`
                is less than 1.
        """
        if not inputs or len(set(inputs)) < len(inputs):
            raise ValueError(
                "A plan needs inputs, each of them once. Received: "
                f"{len(inputs)} inputs, {len(set(inputs))} of them different"
            )
        height, width = image_size
        return cls(
            num_inputs=len(inputs),
            inputs_checksum=_checksum_of_lines(inputs),
            model_checksum=model_checksum,
            image_size=(height, width),
            channels=channels,
            shard_size=standardize_int(shard_size, "shard_size", 1),
            maps=maps,
        )

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-self.num_inputs // self.shard_size)

    def bounds(self, shard: int) -> tuple[int, int]:
        """Numbers of the first input of a shard, and of the first after it."""
        start = shard * self.shard_size
        return start, min(start + self.shard_size, self.num_inputs)

    @property
    def checksum(self) -> str:
        """What tells this plan from others; each shard carries it."""
        return _checksum_of_lines([json.dumps(self.to_dict(), sort_keys=True)])

    def to_dict(self) -> dict[str, Any]:
        """Returns the record for `plan.json`."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, record: Any) -> "ScorePlan":
        """Reads the record of `plan.json`.

        Raises:
            ValueError: If it is none.
        """
        try:
            return cls.model_validate(record)
        except ValidationError as error:
            problem = error.errors()[0]
            raise ValueError(
                "It is no plan of this version: "
                f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            ) from error

    def differences(self, wanted: "ScorePlan") -> list[str]:
        """Says what this plan has and another one wants, one line each."""
        lines = []
        if self.inputs_checksum != wanted.inputs_checksum:
            # The same number may be other files.
            lines.append(
                f"other inputs ({self.num_inputs} images then, "
                f"{wanted.num_inputs} now)"
            )
        if self.model_checksum != wanted.model_checksum:
            lines.append(
                f"another model (checksum {self.model_checksum[:12]} then, "
                f"{wanted.model_checksum[:12]} now)"
            )
        for name in ("image_size", "channels", "shard_size", "maps"):
            then, now = getattr(self, name), getattr(wanted, name)
            if then != now:
                lines.append(f"another {name} ({then} then, {now} now)")
        return lines


def checksum_of_model(path: str) -> str:
    """Returns the SHA-256 of a model.

    Args:
        path: A file, of which it is the checksum that `sha256sum` prints; or
            the folder of a SavedModel, of which it is that of the lines that
            `sha256sum` prints for its files, sorted by name.

    Example:
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     checksum_of_model(file.name)[:8]
    'e3b0c442'
    """
    if os.path.isfile(path):
        return sha256_of(path)
    folder = pathlib.Path(path)
    names = sorted(
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.is_file()
    )
    return _checksum_of_lines(
        f"{sha256_of(folder / name)}  {name}"
        for name in names
        if name.split("/")[0] not in _BESIDE
    )


def _checksum_of_lines(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()
