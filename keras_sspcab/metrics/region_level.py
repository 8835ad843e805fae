"""Region-level metrics of videos: RBDC and TBDC."""

import dataclasses
import os
from typing import Any

import numpy as np

from keras_sspcab.checks import standardize_int, standardize_number
from keras_sspcab.metrics.boxes import (
    BOX_COLUMNS,
    DETECTION_COLUMNS,
    TRACK_COLUMNS,
    Table,
    read_detections,
    read_tracks,
    standardize_table,
)
from keras_sspcab.metrics.image_level import Curve

# Pairs of a detection and a box of its frame that are compared at a time.
NUM_PAIRS = 2**18


@dataclasses.dataclass(frozen=True, eq=False)
class RegionMetrics:
    """Region-based and track-based detection criteria.

    Attributes:
        rbdc: Area under `rbdr_curve`, in [0, 1].
        tbdc: Area under `tbdr_curve`, in [0, 1].
        rbdr_curve: False positive regions per frame from 0 to 1 (x), and the
            share of the ground-truth boxes that are found (y); one point a
            detection.
        tbdr_curve: The same with the share of the tracks that are found.

    Example:
        >>> result = rbdc_tbdc([], [(0, 0, 3, 10, 10, 29, 29)], num_frames=9)
        >>> result.rbdr_curve.y
        array([0., 0.])
    """

    rbdc: float
    tbdc: float
    rbdr_curve: Curve
    tbdr_curve: Curve


def rbdc_tbdc(
    detections: Any,
    tracks: Any,
    num_frames: int,
    iou_threshold: float = 0.1,
    track_threshold: float = 0.1,
) -> RegionMetrics:
    """Region-based (RBDC) and track-based (TBDC) detection criteria.

    Detections are taken by falling score; equal scores keep their order. Each
    finds all boxes of its frame that it overlaps enough. One that overlaps
    none is a false positive; one that only meets boxes found before counts
    neither way. A track is found once enough of its boxes are. The criteria
    are the areas under the shares of found boxes and tracks over the number of
    false positives per frame, from 0 to 1 (Ramachandra and Jones, "Street
    Scene", WACV 2020). At the threshold is enough, as in the published
    evaluation code. Tracks of videos without any detection count.

    Args:
        detections: Boxes with scores, larger is more anomalous: anything with
            the columns `video`, `frame`, `x_min`, `y_min`, `x_max`, `y_max`
            and `score` (a dict of arrays, a data frame), an array `(n, 7)` in
            this order, or a folder for `read_detections`. Coordinates are
            inclusive: `x_min=0, x_max=9` is 10 pixels wide.
        tracks: Boxes of the ground truth, likewise: the columns `video`,
            `track`, `frame`, `x_min`, `y_min`, `x_max` and `y_max`, an array
            `(m, 7)`, or a folder for `read_tracks`. A track's number means the
            same track only within its video.
        num_frames: How many frames all test videos have together, also those
            without anomalies.
        iou_threshold: Intersection over union from which on a detection
            overlaps a box enough, in (0, 1].
        track_threshold: Share of a track's boxes from which on it is found,
            in (0, 1].

    Raises:
        ValueError: If there is no ground-truth box, or one is broken. The error
            names the row, or file and line.

    Example:
        >>> # Video, frame, box, score; video, track, frame, box.
        >>> detections = [(0, 3, 12, 10, 31, 29, 0.9)]
        >>> tracks = [(0, 1, 3, 10, 10, 29, 29), (0, 1, 4, 10, 10, 29, 29)]
        >>> result = rbdc_tbdc(detections, tracks, num_frames=100)
        >>> result.rbdc, result.tbdc
        (0.5, 1.0)
    """
    if isinstance(detections, str | os.PathLike):
        detections = read_detections(detections)
    if isinstance(tracks, str | os.PathLike):
        tracks = read_tracks(tracks)
    detections = standardize_table(detections, "detections", DETECTION_COLUMNS)
    tracks = standardize_table(tracks, "tracks", TRACK_COLUMNS)
    num_frames = standardize_int(num_frames, "num_frames", 1)
    standardize_number(iou_threshold, "iou_threshold", 0, 1, excluded=0)
    standardize_number(track_threshold, "track_threshold", 0, 1, excluded=0)
    if tracks["frame"].size == 0:
        raise ValueError(
            "RBDC and TBDC are not defined without ground truth. Received: "
            "tracks without any box"
        )
    order = np.argsort(-detections["score"], kind="stable")
    ranked = {column: array[order] for column, array in detections.items()}
    found_at, is_false = _match(ranked, tracks, iou_threshold)
    tracks_found_at = _find_tracks(tracks, found_at, track_threshold)
    alarms = np.cumsum(is_false)
    rbdc, rbdr_curve = _integrate(found_at, alarms, num_frames)
    tbdc, tbdr_curve = _integrate(tracks_found_at, alarms, num_frames)
    return RegionMetrics(rbdc, tbdc, rbdr_curve, tbdr_curve)


def _match(
    ranked: Table, tracks: Table, iou_threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Compares detections, by falling score, with the boxes of their frames.

    Returns for each box the rank of the detection that finds it (one past the
    last if none does), and for each detection whether it is a false positive.
    """
    num_detections = ranked["frame"].size
    box_codes, detection_codes = _frame_codes(ranked, tracks)
    by_frame = np.argsort(box_codes, kind="stable")
    box_codes = box_codes[by_frame]
    starts = np.searchsorted(box_codes, detection_codes, side="left")
    counts = np.searchsorted(box_codes, detection_codes, side="right") - starts
    boxes = np.stack([tracks[name][by_frame] for name in BOX_COLUMNS])

    found_at = np.full(by_frame.size, num_detections)
    is_false = np.ones(num_detections, dtype=bool)
    candidates = np.flatnonzero(counts)
    num_pairs = np.append(0, np.cumsum(counts[candidates]))
    first = 0
    while first < candidates.size:
        limit = num_pairs[first] + NUM_PAIRS
        last = int(np.searchsorted(num_pairs, limit, side="right")) - 1
        part = candidates[first : max(last, first + 1)]
        first += part.size
        ranks = np.repeat(part, counts[part])
        # Each detection's pairs run through the boxes of its frame.
        before = np.cumsum(counts[part]) - counts[part]
        pairs = np.arange(ranks.size) + np.repeat(
            starts[part] - before, counts[part]
        )
        regions = np.stack([ranked[name][ranks] for name in BOX_COLUMNS])
        hits = _iou(regions, boxes[:, pairs]) >= iou_threshold
        ranks, pairs = ranks[hits], pairs[hits]
        is_false[ranks] = False
        new = found_at[pairs] == num_detections
        # Of several assignments to one box the last one, the best rank, stays.
        found_at[pairs[new][::-1]] = ranks[new][::-1]
    result = np.empty_like(found_at)
    result[by_frame] = found_at
    return result, is_false


def _frame_codes(ranked: Table, tracks: Table) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the frames that have boxes; detections elsewhere get -1."""
    videos, box_video = np.unique(tracks["video"], return_inverse=True)
    frames, box_frame = np.unique(tracks["frame"], return_inverse=True)
    names = ranked["video"]
    if names.size and (names.dtype.kind == "U") != (videos.dtype.kind == "U"):
        raise ValueError(
            "The `detections` and `tracks` arguments must name their videos "
            "alike, all by strings or all by numbers. Received: detections of "
            f"video {names.item(0)!r}, tracks of video {videos.item(0)!r}"
        )
    video, frame = _look_up(videos, names), _look_up(frames, ranked["frame"])
    codes = np.where((video < 0) | (frame < 0), -1, video * frames.size + frame)
    return box_video * frames.size + box_frame, codes


def _look_up(known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns where each value stands in sorted `known`, -1 if nowhere."""
    places = np.minimum(np.searchsorted(known, values), known.size - 1)
    return np.where(known[places] == values, places, -1)


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes `(4, n)` whose ends are inclusive."""
    width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0]) + 1
    height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1]) + 1
    overlap = np.maximum(width, 0) * np.maximum(height, 0)
    return overlap / (_area(a) + _area(b) - overlap)


def _area(box: np.ndarray) -> np.ndarray:
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)


def _find_tracks(
    tracks: Table, found_at: np.ndarray, track_threshold: float
) -> np.ndarray:
    """Returns the rank of the detection at which each track is found."""
    _, video = np.unique(tracks["video"], return_inverse=True)
    numbers, track = np.unique(tracks["track"], return_inverse=True)
    _, codes, lengths = np.unique(
        video * numbers.size + track, return_inverse=True, return_counts=True
    )
    # The fewest boxes whose share, in floating point, reaches the threshold.
    needed = np.ceil(track_threshold * lengths).astype("int64")
    needed -= (needed - 1) / lengths >= track_threshold
    needed += needed / lengths < track_threshold
    ordered = found_at[np.lexsort((found_at, codes))]
    starts = np.cumsum(lengths) - lengths
    return ordered[starts + needed - 1]


def _integrate(
    found_at: np.ndarray, alarms: np.ndarray, num_frames: int
) -> tuple[float, Curve]:
    """Returns the area under the share of what is found, and its curve."""
    ranks = found_at[found_at < alarms.size]
    # What is found after n false positives adds a strip from n to the end. In
    # whole numbers, so that only the division rounds.
    strips = int(np.maximum(num_frames - alarms[ranks], 0).sum())
    area = strips / (num_frames * found_at.size)
    gains = np.bincount(ranks, minlength=alarms.size)
    end = int(np.searchsorted(alarms, num_frames, side="right"))
    x = np.append(0, alarms[:end]) / num_frames
    y = np.append(0, np.cumsum(gains)[:end]) / found_at.size
    if x[-1] < 1:
        x, y = np.append(x, 1.0), np.append(y, y[-1])
    return area, Curve(x, y)
