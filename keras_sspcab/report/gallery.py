"""Which pictures a report shows, and in what order: worst misses first."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keras_sspcab.report import pictures
from keras_sspcab.report.content import EvaluatedRun, Nouns
from keras_sspcab.runs.outputs import ImageScore, KeyFrame

MAX_SIDE = 480

Picture = ImageScore | KeyFrame


@dataclasses.dataclass
class Group:
    """Pictures that ended in the same way."""

    key: str
    title: str
    verdict: str
    order: str
    members: list[Picture]
    shown: int = 0


# Key, title, verdict and order; label, whether flagged, and whether the highest
# score comes first.
_GROUPS = (
    (
        *("missed", "Misses", "Missed"),
        "{Anomalous} {things} that were not flagged, lowest score first.",
        *(1, False, False),
    ),
    (
        *("false-alarm", "False alarms", "False alarm"),
        "Normal {things} that were flagged, highest score first.",
        *(0, True, True),
    ),
    (
        *("flagged", "Flagged {things}", "Flagged"),
        "{Things} without a label that were flagged, most suspicious first.",
        *(None, True, True),
    ),
    (
        *("unflagged", "Other {things}", "Not flagged"),
        "{Things} without a label that were not flagged, most suspicious "
        "first.",
        *(None, False, True),
    ),
    (
        *("found", "Found {anomalies}", "Found"),
        "{Anomalous} {things} that were flagged, closest calls first.",
        *(1, True, False),
    ),
    (
        *("passed", "Passed normal {things}", "Passed"),
        "Normal {things} that were not flagged, closest calls first.",
        *(0, False, True),
    ),
)


def group_pictures(
    members: Sequence[Picture], max_images: int, nouns: Nouns
) -> list[Group]:
    """Sorts pictures into groups, the most instructive first.

    A tenth of `max_images` is kept for each group, so that there is something
    to compare with; misses take what they need of the rest, then false alarms,
    then the others.
    """
    words = {
        **nouns._asdict(),
        "Things": nouns.things.capitalize(),
        "Anomalous": nouns.anomalous.capitalize(),
    }
    groups = []
    for key, title, verdict, order, label, is_flagged, descending in _GROUPS:
        chosen = [
            picture
            for picture in members
            if (picture.label, picture.is_anomalous) == (label, is_flagged)
        ]
        if chosen:
            chosen.sort(key=lambda picture: picture.score, reverse=descending)
            texts = (title.format(**words), verdict, order.format(**words))
            groups.append(Group(key, *texts, chosen))
    _share_out(groups, max_images)
    return groups


def _share_out(groups: Sequence[Group], max_images: int) -> None:
    """Sets how many pictures of each group are shown."""
    for group in groups:
        group.shown = min(len(group.members), max_images // 10)
    left = max_images - sum(group.shown for group in groups)
    # The second pass gives away what the last group did not need.
    for is_first_pass in (True, False):
        for group in groups:
            more = min(left, len(group.members) - group.shown)
            if group.key == "found" and is_first_pass:
                more = min(more, -(-left // 2))
            group.shown += more
            left -= more


def make_cards(
    run: EvaluatedRun, group: Group, limit: float, targets: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Returns what the page shows of a group, with images as data URIs.

    `targets` are the identifiers in the page that names of videos lead to.
    """
    common = _common_folder(picture.path for picture in run.pictures)
    cards = []
    for picture in group.members[: group.shown]:
        if isinstance(picture, KeyFrame):
            name = f"{picture.video}, frame {picture.frame}"
            kind, target = "", targets.get(picture.video, "")
            filtered_by = picture.video
        else:
            filtered_by = picture.defect
            name = picture.path[len(common) :]
            kind, target = picture.defect if picture.label else "", ""
        photo = pictures.load_photo(picture.path, MAX_SIDE, run.preprocessing)
        anomaly_map = picture.load_map()
        size, heat, outline = (MAX_SIDE, MAX_SIDE), None, None
        conflict = None
        if anomaly_map is not None:
            # Maps of frames may be painted of those of objects.
            if isinstance(picture, ImageScore):
                conflict = run.calibration.describe_conflict(
                    picture.score, anomaly_map
                )
            size = (anomaly_map.shape[1], anomaly_map.shape[0])
            heat = pictures.heat_uri(anomaly_map, limit, MAX_SIDE)
        if photo is not None:
            size = photo.size
        if picture.mask_path is not None:
            mask = pictures.load_mask(picture.mask_path, size[::-1])
            outline = None if mask is None else pictures.outline(mask)
        cards.append(
            {
                "picture": picture,
                "name": name,
                "kind": kind,
                "filter": filtered_by,
                "target": target,
                "photo": None if photo is None else pictures.photo_uri(photo),
                "heat": heat,
                "outline": outline,
                "size": size,
                "conflict": conflict,
            }
        )
    return cards


def _common_folder(paths: Iterable[str]) -> str:
    """Returns the folder that all images lie in, with its separator."""
    try:
        folder = os.path.commonpath([os.path.dirname(p) for p in paths])
    except ValueError:  # none at all, or relative and absolute ones
        return ""
    return os.path.join(folder, "") if folder else ""
