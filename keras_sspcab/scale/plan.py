"""What one table of scores is made of: inputs, model, shards."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from keras_sspcab.checks import standardize_int
from keras_sspcab.scale.checksums import checksum_of_lines

_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Plan:
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
    """

    num_inputs: int
    inputs_checksum: str
    model_checksum: str
    image_size: tuple[int, int]
    channels: int
    shard_size: int
    maps: bool
    format: int = _FORMAT

    @classmethod
    def make(
        cls,
        inputs: Sequence[str],
        model_checksum: str,
        image_size: Sequence[int],
        channels: int,
        shard_size: int = 1000,
        maps: bool = False,
    ) -> "Plan":
        """Makes the plan of a list of inputs.

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
            len(inputs),
            checksum_of_lines(inputs),
            model_checksum,
            (height, width),
            channels,
            standardize_int(shard_size, "shard_size", 1),
            maps,
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
        return checksum_of_lines([json.dumps(self.to_dict(), sort_keys=True)])

    def to_dict(self) -> dict[str, Any]:
        """Returns the record for `plan.json`."""
        fields = dataclasses.asdict(self)
        return {**fields, "image_size": list(self.image_size)}

    @classmethod
    def from_dict(cls, record: Any) -> "Plan":
        """Reads the record of `plan.json`.

        Raises:
            ValueError: If it is none.
        """
        try:
            plan = cls(**record)
            height, width = plan.image_size
            plan = dataclasses.replace(plan, image_size=(height, width))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"It is no plan of this version: {error}"
            ) from error
        if plan.format != _FORMAT:
            raise ValueError(
                f"It is no plan of this version. Received: format={plan.format}"
            )
        return plan

    def differences(self, wanted: "Plan") -> list[str]:
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
