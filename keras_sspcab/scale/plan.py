"""What one table of scores is made of: inputs, model, shards."""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.file_system import (
    require_utf8,
    scheme_of,
    standardize_path,
)
from keras_sspcab.data.scanning import find_images
from keras_sspcab.files import sha256_of


def list_inputs(inputs: Iterable[Any], known: Iterable[str] = ()) -> list[str]:
    """Lists absolute paths and URLs, sorted, each once.

    What a path stands for, `find_images` says. Links are not followed.

    `known` are those of an earlier call. Files among them that have vanished
    since are listed as well, if there are no new ones.
    """
    known, paths = {*known}, set()
    for item in inputs:
        path = standardize_path(item, "inputs")
        place = path if scheme_of(path) else os.path.abspath(path)
        matches = find_images(place)
        if not matches and place in known:
            matches = [place]
        if not matches:
            raise ValueError(
                f"There is no file that matches {path!r}. Give a file, a "
                "folder, or a pattern such as 'images/**/*.png' in quotes"
                + _explain_brackets(path)
            )
        paths.update(matches)
    if paths <= known:
        paths |= {
            path
            for path in known - paths
            if not scheme_of(path) and not os.path.lexists(path)
        }
    listed = sorted(paths)
    require_utf8(listed)
    return listed


def _explain_brackets(path: str) -> str:
    if "[" not in path:
        return ""
    return (
        ". Brackets are part of the pattern: they stand for one of the "
        f"characters in them. For the brackets themselves, write "
        f"{path.replace('[', '[[]')!r}"
    )


# Files beside a SavedModel that do not change what it computes.
_BESIDE = ("parity.json", "MANIFEST.sha256", "assets.extra")


class Scorer(Protocol):
    """A model that is ready to score images.

    Attributes:
        image_size: Height and width of the images it takes.
        channels: 1 for gray, 3 for color.
        checksum: SHA-256 of its files; see `checksum_of_model`.

    One whose images are not read by default also has a `preprocessing`, one
    that knows what normal images are like a `reference` to tell drift by, one
    with other thresholds than those of the model a `decision` that names them,
    one that also gives scores of regions their `region_names`, and one of
    several products their `product_names`, of which `product_index` is one.

    Example:
    >>> class Brightness:
    ...     image_size, channels, checksum = (8, 8), 1, "0"
    ...
    ...     def __call__(self, images):
    ...         scores = images.mean((1, 2, 3))
    ...         return {"anomaly_score": scores, "is_anomalous": scores > 0.5}
    """

    image_size: tuple[int, int]
    channels: int
    checksum: str

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Scores float32 images `(batch, height, width, channels)` in [0, 1].

        Returns:
            `anomaly_score` and `is_anomalous`, and `raw_score` and
            `anomaly_map` if there are such.
        """


class ScorePlan(BaseModel):
    """What must stay the same from a start to the end, however often stopped.

    It is the record `plan.json`; checksums are SHA-256, of the model and of the
    paths of the inputs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_inputs: int
    inputs_checksum: str
    model_checksum: str
    image_size: tuple[int, int]
    channels: int
    shard_size: int
    maps: bool
    decision: str = ""
    regions: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    format: Literal[1] = 1

    @classmethod
    def make(
        cls,
        inputs: Sequence[str],
        scorer: Scorer,
        shard_size: int,
        maps: bool,
    ) -> "ScorePlan":
        """Returns the plan for a list of inputs."""
        if not inputs:
            raise ValueError("There are no inputs. Give files or patterns")
        return cls(
            num_inputs=len(inputs),
            inputs_checksum=_checksum_of_lines(inputs),
            model_checksum=scorer.checksum,
            image_size=scorer.image_size,
            channels=scorer.channels,
            shard_size=standardize_int(shard_size, "shard_size", 1),
            maps=maps,
            decision=getattr(scorer, "decision", ""),
            regions=tuple(getattr(scorer, "region_names", ())),
            products=tuple(getattr(scorer, "product_names", ())),
        )

    @property
    def num_shards(self) -> int:
        """Number of shards; the last may have fewer inputs."""
        return -(-self.num_inputs // self.shard_size)

    def bounds(self, shard: int) -> tuple[int, int]:
        """Numbers of the first input of a shard, and of the first after it."""
        start = shard * self.shard_size
        return start, min(start + self.shard_size, self.num_inputs)

    @property
    def checksum(self) -> str:
        """What tells this plan from others; each shard carries it."""
        # Plans of earlier versions had none of them.
        names = ("decision", "regions", "products")
        later = {name for name in names if not getattr(self, name)}
        record = self.model_dump(mode="json", exclude=later)
        return _checksum_of_lines([json.dumps(record, sort_keys=True)])

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
        if self.decision != wanted.decision:
            then, now = (
                plan.decision or "that of the model" for plan in (self, wanted)
            )
            lines.append(f"another decision ({then} then, {now} now)")
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
