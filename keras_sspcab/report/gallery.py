"""Which images a report shows, and in what order: worst misses first."""

import dataclasses
from collections.abc import Iterable

from keras_sspcab.report import pictures
from keras_sspcab.report.heat import HeatScale
from keras_sspcab.report.run_data import Prediction

MAX_SIDE = 320


@dataclasses.dataclass
class Group:
    """Images that ended in the same way.

    Attributes:
        key: For the page's markup.
        title: Heading.
        verdict: What one of the images is called.
        order: How they are sorted, in words.
        members: All of them, sorted.
        shown: How many of them the page shows.
    """

    key: str
    title: str
    verdict: str
    order: str
    members: list[Prediction]
    shown: int = 0


@dataclasses.dataclass(frozen=True)
class Card:
    """One image of the gallery.

    Attributes:
        prediction: What is shown.
        photo: Data URI of the image, or None if it cannot be read.
        heat: Data URI of the map's colours, or None if there is no map.
        outline: Path of the ground truth's border, in pixels, or None.
        size: Width and height of the picture, in pixels.
    """

    prediction: Prediction
    photo: str | None
    heat: str | None
    outline: str | None
    size: tuple[int, int]


def group_predictions(
    predictions: Iterable[Prediction], max_images: int
) -> list[Group]:
    """Sorts images into groups, the most instructive first.

    Args:
        predictions: All of them.
        max_images: How many are shown. A tenth is kept for each group, so that
            there is something to compare with; misses take what they need of
            the rest, then false alarms, then the others.

    Returns:
        The groups that have members.
    """

    def by_score(
        label: int | None, flags: tuple[bool, ...], descending: bool
    ) -> list[Prediction]:
        chosen = [
            p
            for p in predictions
            if p.label == label and p.is_anomalous in flags
        ]
        return sorted(chosen, key=lambda p: p.score, reverse=descending)

    predictions = list(predictions)
    groups = [
        Group(
            "missed",
            "Misses",
            "Missed",
            "Defective images below the threshold, lowest score first.",
            by_score(1, (False,), False),
        ),
        Group(
            "false-alarm",
            "False alarms",
            "False alarm",
            "Normal images at or above the threshold, highest score first.",
            by_score(0, (True,), True),
        ),
        Group(
            "flagged",
            "Flagged images",
            "Flagged",
            "Images without a label, at or above the threshold, most "
            "suspicious first.",
            by_score(None, (True,), True),
        ),
        Group(
            "unflagged",
            "Other images",
            "Not flagged",
            "Images without a label, below the threshold, most suspicious "
            "first.",
            by_score(None, (False,), True),
        ),
        Group(
            "found",
            "Found defects",
            "Found",
            "Defective images at or above the threshold, closest calls first.",
            by_score(1, (True,), False),
        ),
        Group(
            "passed",
            "Passed normal images",
            "Passed",
            "Normal images below the threshold, closest calls first.",
            by_score(0, (False,), True),
        ),
    ]
    groups = [group for group in groups if group.members]
    _share_out(groups, max_images)
    return groups


def _share_out(groups: list[Group], max_images: int) -> None:
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


def make_card(prediction: Prediction, scale: HeatScale) -> Card:
    """Loads what one image of the gallery shows."""
    photo = pictures.load_photo(prediction.path, MAX_SIDE)
    anomaly_map = prediction.load_map()
    size = (MAX_SIDE, MAX_SIDE)
    if photo is not None:
        size = photo.size
    elif anomaly_map is not None:
        size = (anomaly_map.shape[1], anomaly_map.shape[0])
    mask = None
    if prediction.mask_path is not None:
        mask = pictures.load_mask(prediction.mask_path, size[::-1])
    return Card(
        prediction=prediction,
        photo=None if photo is None else pictures.photo_uri(photo),
        heat=(
            None
            if anomaly_map is None
            else pictures.heat_uri(anomaly_map, scale.limit, MAX_SIDE)
        ),
        outline=None if mask is None else pictures.outline(mask) or None,
        size=size,
    )
