"""Regions from per-pixel error maps, for models that give no boxes."""

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from keras_sspcab.checks import standardize_choice, standardize_scores
from keras_sspcab.metrics.boxes import (
    DETECTION_COLUMNS,
    Table,
    standardize_table,
)
from keras_sspcab.metrics.frame_scores import by_video
from keras_sspcab.metrics.pixel_level import EIGHT_NEIGHBORS


def regions_from_maps(
    maps_by_video: Any,
    thresholds: Iterable[float],
    min_area: int = 1,
    score: Literal["max", "mean"] = "max",
    first_frame: int = 0,
    frame_size: tuple[int, int] | None = None,
) -> Table:
    """Turns anomaly maps into scored boxes, for `rbdc_tbdc`.

    How frame-prediction models came to their published RBDC and TBDC is not
    known; this is a plain substitute, to be named beside the numbers. At each
    threshold the pixels at or above it form connected components (8
    neighbors). A component is a detection: the box around it, scored by its
    largest or mean value. Of equal boxes in a frame, from several thresholds,
    only the one with the largest score stays.

    Args:
        maps_by_video: Dict from video to array `(n, height, width)`, or to an
            iterable of maps `(height, width)`, larger is more anomalous; or
            list of such, its videos counted from 0.
        thresholds: Levels in the units of the maps. Several of them find weak
            regions and still part strong ones.
        min_area: Components of fewer pixels (of the map) are left out.
        score: `"max"` or `"mean"` value of a component.
        first_frame: Number of the first map's frame, as the ground truth
            counts: 4 where the first four frames have no prediction.
        frame_size: `(height, width)` of the frames that the ground truth is
            given in; boxes are scaled to it. None leaves them in pixels of the
            map.

    Returns:
        Dict of arrays `(n,)`: `video`, `frame`, `x_min`, `y_min`, `x_max`,
        `y_max` and `score`, by video and frame. Within a frame, components of
        higher thresholds come first.

    Raises:
        ValueError: If there is no threshold, or if the arguments are not as
            described. The error names video and frame.

    Example:
        >>> maps = {"a": [[[0, 0, 0], [0, 2, 3]]]}
        >>> regions = regions_from_maps(maps, thresholds=[1.0])
        >>> [int(regions[name][0]) for name in ("x_min", "x_max", "score")]
        [1, 2, 3]
    """
    levels = sorted({float(level) for level in thresholds}, reverse=True)
    if not levels or not np.all(np.isfinite(levels)):
        raise ValueError(
            "The `thresholds` argument must hold at least one finite number. "
            f"Received: thresholds={levels}"
        )
    standardize_choice(score, ("max", "mean"), "score")
    names, frames, boxes, scores = [], [], [], []
    for video, maps in by_video(maps_by_video, "maps_by_video").items():
        for frame, anomaly_map in enumerate(maps, first_frame):
            array = _standardize_map(anomaly_map, video, frame)
            regions, values = _regions(array, levels, min_area, score)
            if frame_size is not None:
                regions = _scale(regions, array.shape, frame_size)
            names += [video] * len(regions)
            frames += [frame] * len(regions)
            boxes.append(regions)
            scores.append(values)
    columns = [
        names,
        frames,
        *np.concatenate([np.empty((0, 4)), *boxes]).T,
        np.concatenate([np.empty(0), *scores]),
    ]
    table = dict(zip(DETECTION_COLUMNS, columns, strict=True))
    return standardize_table(table, "maps_by_video", DETECTION_COLUMNS)


def _standardize_map(anomaly_map: Any, video: Any, frame: int) -> np.ndarray:
    name = f"maps_by_video[{video!r}]"
    where = f"{name}, frame {frame}"
    array = standardize_scores(anomaly_map, where, "float64")
    if array.ndim != 2:
        raise ValueError(
            f"The `{name}` argument must hold maps (height, width). "
            f"Received: shape {array.shape} in frame {frame}"
        )
    return array


def _regions(
    anomaly_map: np.ndarray, levels: list[float], min_area: int, score: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns boxes `(n, 4)` and scores `(n,)` of one map."""
    from scipy import ndimage

    measure = ndimage.maximum if score == "max" else ndimage.mean
    peak = anomaly_map.max(initial=-np.inf)
    best: dict[tuple[int, ...], float] = {}
    for level in levels:
        if level > peak:
            continue
        labels, count = ndimage.label(anomaly_map >= level, EIGHT_NEIGHBORS)
        areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        values = measure(anomaly_map, labels, np.arange(1, count + 1))
        places = ndimage.find_objects(labels)
        for (rows, columns), area, value in zip(
            places, areas, values, strict=True
        ):
            if area < min_area:
                continue
            box = (columns.start, rows.start, columns.stop - 1, rows.stop - 1)
            best[box] = max(float(value), best.get(box, -np.inf))
    boxes = np.array(list(best), dtype="float64").reshape(-1, 4)
    return boxes, np.array(list(best.values()), dtype="float64")


def _scale(
    boxes: np.ndarray, size: tuple[int, ...], frame_size: tuple[int, int]
) -> np.ndarray:
    """Scales boxes from maps to frames; both ends belong to a box."""
    height, width = frame_size
    factors = np.array([width / size[1], height / size[0]] * 2)
    # A pixel at x covers the interval from x to x + 1.
    inclusive = np.array([0, 0, 1, 1])
    return (boxes + inclusive) * factors - inclusive
