"""Which images a report shows, and in what order: worst misses first."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from keras_sspcab.report import pictures
from keras_sspcab.report.heat import HeatScale
from keras_sspcab.report.run_files import ScoredPicture

MAX_SIDE = 320
Picture = TypeVar("Picture", bound=ScoredPicture)


class Words(NamedTuple):
    """What the pictures are called.

    Attributes:
        things: All of them.
        anomalous: Those with an anomaly, at the beginning of a sentence.
        found: Heading of those that were found.
    """

    things: str
    anomalous: str
    found: str


IMAGES = Words("images", "Defective images", "Found defects")
FRAMES = Words("frames", "Abnormal frames", "Found abnormal frames")


@dataclasses.dataclass
class Group(Generic[Picture]):
    """Pictures that ended in the same way.

    Attributes:
        key: For the page's markup.
        title: Heading.
        verdict: What one of them is called.
        order: How they are sorted, in words.
        members: All of them, sorted.
        shown: How many of them the page shows.
    """

    key: str
    title: str
    verdict: str
    order: str
    members: list[Picture]
    shown: int = 0


@dataclasses.dataclass(frozen=True)
class Card:
    """One picture of the gallery.

    Attributes:
        picture: What is shown.
        name: What it is called.
        kind: Of its anomaly, may be empty.
        target: Identifier in the page that its name leads to, or empty.
        photo: Data URI of the image, or None if it cannot be read.
        heat: Data URI of the map's colors, or None if there is no map.
        outline: Path of the ground truth's border, in pixels, or None.
        size: Width and height of the picture, in pixels.
    """

    picture: ScoredPicture
    name: str
    kind: str
    target: str
    photo: str | None
    heat: str | None
    outline: str | None
    size: tuple[int, int]


def group_predictions(
    members: Iterable[Picture],
    max_images: int,
    words: Words = IMAGES,
) -> list[Group[Picture]]:
    """Sorts images into groups, the most instructive first.

    Args:
        members: All of them.
        max_images: How many are shown. A tenth is kept for each group, so that
            there is something to compare with; misses take what they need of
            the rest, then false alarms, then the others.
        words: What they are called.

    Returns:
        The groups that have members.
    """

    def by_score(
        label: int | None, flags: tuple[bool, ...], descending: bool
    ) -> list[Picture]:
        chosen = [
            p for p in members if p.label == label and p.is_anomalous in flags
        ]
        return sorted(chosen, key=lambda p: p.score, reverse=descending)

    members = list(members)
    things = words.things
    groups = [
        Group(
            "missed",
            "Misses",
            "Missed",
            f"{words.anomalous} below the threshold, lowest score first.",
            by_score(1, (False,), False),
        ),
        Group(
            "false-alarm",
            "False alarms",
            "False alarm",
            f"Normal {things} at or above the threshold, highest score first.",
            by_score(0, (True,), True),
        ),
        Group(
            "flagged",
            f"Flagged {things}",
            "Flagged",
            f"{things.capitalize()} without a label, at or above the "
            "threshold, most suspicious first.",
            by_score(None, (True,), True),
        ),
        Group(
            "unflagged",
            f"Other {things}",
            "Not flagged",
            f"{things.capitalize()} without a label, below the threshold, most "
            "suspicious first.",
            by_score(None, (False,), True),
        ),
        Group(
            "found",
            words.found,
            "Found",
            f"{words.anomalous} at or above the threshold, closest calls "
            "first.",
            by_score(1, (True,), False),
        ),
        Group(
            "passed",
            f"Passed normal {things}",
            "Passed",
            f"Normal {things} below the threshold, closest calls first.",
            by_score(0, (False,), True),
        ),
    ]
    groups = [group for group in groups if group.members]
    _share_out(groups, max_images)
    return groups


def _share_out(groups: Sequence[Group[Any]], max_images: int) -> None:
    """Sets how many images of each group are shown."""
    # Something of all groups, to compare with, however many misses there are.
    for group in groups:
        group.shown = min(len(group.members), max_images // 10)
    left = max_images - sum(group.shown for group in groups)
    for group in groups:
        more = min(left, len(group.members) - group.shown)
        if group.key == "found":
            more = min(more, -(-left // 2))
        group.shown += more
        left -= more
    for group in groups:  # what the last group did not need
        more = min(left, len(group.members) - group.shown)
        group.shown += more
        left -= more


def make_card(
    picture: ScoredPicture,
    scale: HeatScale,
    name: str,
    kind: str = "",
    target: str = "",
) -> Card:
    """Loads what one card of the gallery shows; see `Card`."""
    photo = pictures.load_photo(picture.path, MAX_SIDE)
    anomaly_map = picture.load_map()
    size = (MAX_SIDE, MAX_SIDE)
    if photo is not None:
        size = photo.size
    elif anomaly_map is not None:
        size = (anomaly_map.shape[1], anomaly_map.shape[0])
    mask = None
    if picture.mask_path is not None:
        mask = pictures.load_mask(picture.mask_path, size[::-1])
    return Card(
        picture=picture,
        name=name,
        kind=kind,
        target=target,
        photo=None if photo is None else pictures.photo_uri(photo),
        heat=(
            None
            if anomaly_map is None
            else pictures.heat_uri(anomaly_map, scale.limit, MAX_SIDE)
        ),
        outline=None if mask is None else pictures.outline(mask) or None,
        size=size,
    )
