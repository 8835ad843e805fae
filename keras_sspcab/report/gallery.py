"""The pictures of a report: worst misses first, and small enough for it."""

import dataclasses
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from skimage import measure

from keras_sspcab.data import image_files, masks
from keras_sspcab.pictures.heat import (
    COLOR_TABLE,
    LEVELS,
    heat_levels,
    seen_part,
)
from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.report.content import EvaluatedRun, Nouns
from keras_sspcab.runs.outputs import ImageScore, KeyFrame

# Coarser colors halve the size of the page; no eye tells 64 steps from 256.
_STEPS = 64


def load_photo(
    path: str,
    max_side: int | None = None,
    preprocessing: Preprocessing | None = None,
) -> Image.Image | None:
    """Opens an image file as 8-bit RGB, as the model sees it.

    Returns None if the file is gone or cannot be read.
    """
    try:
        photo = image_files.load_photo(path, preprocessing)
    except ValueError:
        return None
    if max_side is not None:
        photo.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return photo


def load_mask(path: str, size: tuple[int, int]) -> np.ndarray | None:
    """Opens a mask as bool `(height, width)`; None if it cannot be read."""
    try:
        return masks.resize_mask(masks.read_mask(path), size)[0]
    except ValueError:
        return None


def encode_photo(photo: Image.Image) -> bytes:
    """Returns an image as JPEG."""
    return _encode(photo, "jpeg", quality=85, optimize=True)


def encode_heat(anomaly_map: np.ndarray, scale: float, max_side: int) -> bytes:
    """Returns the colors of a map as transparent PNG."""
    height, width = anomaly_map.shape
    picture = Image.fromarray(anomaly_map.astype("float32"))
    shrink = max_side / max(height, width)
    if shrink < 1:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    levels = heat_levels(np.asarray(picture), scale)
    step = (levels.astype("uint16") * (_STEPS - 1) + LEVELS // 2) // LEVELS
    indexed = Image.fromarray(step.astype("uint8"))
    kept = np.rint(np.linspace(0, LEVELS - 1, _STEPS)).astype(int)
    indexed.putpalette(COLOR_TABLE[kept, :3].tobytes())
    return _encode(
        indexed, "png", optimize=True, transparency=bytes(COLOR_TABLE[kept, 3])
    )


def draw_outline(mask: np.ndarray) -> str:
    """Returns the border of a mask as the `d` of an SVG path, in pixels."""
    padded = np.pad(mask.astype("float32"), 1)
    parts = []
    for contour in measure.find_contours(padded, 0.5):
        corners = measure.approximate_polygon(contour, 0.4) - 0.5
        points = "L".join(f"{column:.1f} {row:.1f}" for row, column in corners)
        parts.append(f"M{points}Z")
    return "".join(parts)


def _encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


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

    @property
    def is_alarming(self) -> bool:
        """Whether the verdict is a mistake, or a flag that none can check."""
        return self.key in ("missed", "false-alarm", "flagged")


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
    run: EvaluatedRun,
    group: Group,
    limit: float,
    targets: Mapping[str, str],
    keep: Callable[[bytes, str], str],
) -> list[dict[str, Any]]:
    """Returns what the page shows of a group.

    `targets` are the identifiers in the page that names of videos lead to.
    `keep` takes an encoded image and its format, and returns its address.
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
        photo = load_photo(picture.path, MAX_SIDE, run.preprocessing)
        anomaly_map = picture.load_map()
        size, heat, outline = (MAX_SIDE, MAX_SIDE), None, None
        regions = None
        conflict = None
        if anomaly_map is not None:
            # Maps of frames may be painted of those of objects.
            if isinstance(picture, ImageScore):
                regions = picture.load_regions()
                conflict = run.calibration.describe_conflict(
                    picture.score, anomaly_map
                )
            if photo is not None:
                how, whole = run.preprocessing, photo.size[::-1]
                shape = anomaly_map.shape
                regions = seen_part(how, shape, whole, regions)
                anomaly_map = how.restore(anomaly_map, whole)
            size = (anomaly_map.shape[1], anomaly_map.shape[0])
            heat = keep(encode_heat(anomaly_map, limit, MAX_SIDE), "png")
        if photo is not None:
            size = photo.size
        if picture.mask_path is not None:
            mask = load_mask(picture.mask_path, size[::-1])
            outline = None if mask is None else draw_outline(mask)
        cards.append(
            {
                "picture": picture,
                "name": name,
                "kind": kind,
                "filter": filtered_by,
                "target": target,
                "photo": photo and keep(encode_photo(photo), "jpeg"),
                "heat": heat,
                "outline": outline,
                "regions": None if regions is None else draw_outline(regions),
                "map_size": None if regions is None else regions.shape[::-1],
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
