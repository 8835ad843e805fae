"""Holding a part of the training data out, to calibrate with."""

import dataclasses
import hashlib
import numbers
from collections.abc import Callable
from typing import Any, TypeVar

Folder = TypeVar("Folder")


def hold_out(
    folder: Folder,
    name_of: Callable[[Any], str],
    fraction: float,
    seed: int,
    items: str,
    advice: str = "",
) -> Folder:
    """Moves a share of the training items to the validation split.

    Which ones follows from the seed and the names alone.

    Args:
        folder: A dataclass with `root`, `train`, `validation` and `notes`.
        name_of: Returns the name of an item, whatever the machine.
        fraction: Share of the items, above 0 and below 1. At least one is held
            out and at least one stays.
        seed: Another seed draws another split.
        items: What they are, for the messages, such as `"images"`.
        advice: What to do where there are too few, for the message.

    Returns:
        A changed copy of the folder, with a note.

    Raises:
        ValueError: If there is a validation split already, there are less than
            two items, or the fraction is out of range.
    """
    source: Any = folder
    is_number = isinstance(fraction, numbers.Real)
    if not is_number or not 0.0 < fraction < 1.0:
        raise ValueError(
            "The `fraction` argument must lie between 0 and 1. "
            f"Received: fraction={fraction!r}"
        )
    if source.validation:
        raise ValueError(
            "There is a validation split already, of "
            f"{len(source.validation)} {items}. Received: root={source.root!r}"
        )
    total = len(source.train)
    if total < 2:
        raise ValueError(
            f"Holding {items} out takes at least two training {items}. "
            f"Received: root={source.root!r} with {total}{advice}"
        )
    held = min(max(round(fraction * total), 1), total - 1)

    def rank(name: str) -> str:
        return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()

    chosen = set(sorted(map(name_of, source.train), key=rank)[:held])
    note = (
        f"validation: {held} of {total} normal {items} held out of train "
        f"(fraction {fraction}, seed {seed})"
    )
    return dataclasses.replace(
        source,
        train=tuple(i for i in source.train if name_of(i) not in chosen),
        validation=tuple(i for i in source.train if name_of(i) in chosen),
        notes=(*source.notes, note),
    )
