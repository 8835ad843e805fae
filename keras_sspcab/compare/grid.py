"""What is compared: every data class, model, block and seed."""

import dataclasses
import itertools
import os
from collections.abc import Iterator

OFF = "off"
ON = "on"

_LARGEST_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training and its evaluation; of `block` see `parse_blocks`."""

    data_class: str
    model: str
    block: str
    seed: int

    def __str__(self) -> str:
        return (
            f"{self.data_class}, {self.model} {describe_block(self.block)}, "
            f"seed {self.seed}"
        )

    @property
    def folder(self) -> str:
        """The run folder, relative to that of the comparison."""
        name = f"{self.model}-{self.block}-seed{self.seed}"
        return os.path.join("runs", self.data_class, name)


def describe_block(block: str) -> str:
    """Says in words whether there is a block, and which, and where."""
    fixed = {OFF: "without the block", ON: "with the block"}
    return fixed.get(block, f"with the block ({block})")


@dataclasses.dataclass(frozen=True)
class Grid:
    """The axes of a comparison."""

    classes: tuple[str, ...]
    models: tuple[str, ...]
    blocks: tuple[str, ...]
    seeds: tuple[int, ...]

    def __iter__(self) -> Iterator[Cell]:
        """Yields the cells, one seed of everything after the other.

        So the first pass fills the whole table, and pairs come together.
        """
        for seed, data_class, model, block in itertools.product(
            self.seeds, self.classes, self.models, self.blocks
        ):
            yield Cell(data_class, model, block, seed)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def reference(self) -> str:
        """The block that the others are compared with."""
        return OFF if OFF in self.blocks else self.blocks[0]


def parse_names(text: str, option: str) -> tuple[str, ...]:
    """Reads a list such as `"off,on"`."""
    names = tuple(part.strip() for part in text.split(","))
    if not all(names):
        raise ValueError(
            f"{option} must be names, separated by commas. Received: {text!r}"
        )
    return _require_distinct(names, text, option)


def parse_blocks(text: str) -> tuple[str, ...]:
    """Reads `--sspcab`, a list such as `"off,on,early+late,ssmctb@late"`.

    `"off"` is without a block and `"on"` with it in the model's own place;
    others are places, joined by `+`, or a variant of the block, alone for the
    model's own place or followed by `@` and places. See `HostSettings`.
    """
    blocks = parse_names(text, "--sspcab")
    if "none" in blocks:
        raise ValueError(
            f"--sspcab says {OFF!r} where there is no block. Received: {text!r}"
        )
    for block in blocks:
        variant, at, places = block.rpartition("@")
        if (at and not variant) or "@" in variant or not all(places.split("+")):
            raise ValueError(
                "--sspcab takes places such as late or early+late, and "
                "variants such as ssmctb or ssmctb@late. "
                f"Received: {block!r} in {text!r}"
            )
    return blocks


def parse_seeds(text: str) -> tuple[int, ...]:
    """Reads `--seeds`: "3" for 0, 1 and 2, or "3,5,7"; "7," is one seed."""
    advice = (
        "--seeds must be how many seeds, at least 1, or a list of them from 0 "
        f"to 2^32 - 1 such as 3,5,7. Received: {text!r}"
    )
    is_list = "," in text
    try:
        numbers = [int(part) for part in text.rstrip(",").split(",")]
    except ValueError as error:
        raise ValueError(advice) from error
    if not is_list:
        # More would be a seed that was meant as one.
        if not 1 <= numbers[0] <= 1000:
            raise ValueError(f"{advice}. One seed alone is written as 7,")
        return tuple(range(numbers[0]))
    if not all(0 <= number <= _LARGEST_SEED for number in numbers):
        raise ValueError(advice)
    return _require_distinct(tuple(numbers), text, "--seeds")


def _require_distinct(values: tuple, text: str, option: str) -> tuple:
    if len(set(values)) < len(values):
        raise ValueError(f"{option} holds something twice. Received: {text!r}")
    return values
