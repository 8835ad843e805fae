"""Boxes of anomalies, tracked through the frames of a video."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy import ndimage

from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.masks import iterate_masks
from keras_sspcab.data.video.reading import standardize_videos

_COLUMNS = ("track", "frame", "x_min", "y_min", "x_max", "y_max")
_EIGHT_NEIGHBORS = np.ones((3, 3), bool)


def tracks_from_masks(
    videos: Iterable[Video], min_area: int = 1
) -> dict[str, np.ndarray]:
    """Derives tracks from pixel masks, for `keras_sspcab.metrics.rbdc_tbdc`.

    Where no tracks are published this is a substitute, to be named beside the
    figures. In each frame, connected pixels (8 neighbors) are a region.
    Regions of consecutive frames that share a pixel belong to one track, and so
    do two that merge or part: at each frame, a track has the box around all
    its regions.

    Args:
        videos: Videos with masks. Those without are taken for normal ones.
        min_area: Regions of fewer pixels are left out.

    Returns:
        Dict of arrays `(n,)`: `video` (names), `track` (from 0 in each video),
        `frame` (from 0), `x_min`, `y_min`, `x_max` and `y_max` (inclusive), as
        `keras_sspcab.metrics.write_tracks` takes them.

    Raises:
        ValueError: If masks cannot be read; see `iterate_masks`.
    """
    names: list[str] = []
    rows: list[tuple[int, ...]] = []
    for video in standardize_videos(videos):
        if video.masks is not None:
            of_video = _track(video, min_area)
            names += [video.name] * len(of_video)
            rows += of_video
    table = np.array(rows, "int64").reshape(-1, len(_COLUMNS))
    return {
        "video": np.array(names, dtype=str),
        **dict(zip(_COLUMNS, table.T, strict=True)),
    }


def _track(video: Video, min_area: int) -> list[tuple[int, ...]]:
    """Returns the rows of a video, by track and frame."""
    # Union-find over regions, numbered through all frames.
    parents: list[int] = []
    boxes: list[tuple[int, Any]] = []

    def find(region: int) -> int:
        while parents[region] != region:
            parents[region] = parents[parents[region]]
            region = parents[region]
        return region

    previous = None
    for frame, mask in enumerate(iterate_masks(video)):
        regions, count = ndimage.label(mask, _EIGHT_NEIGHBORS)
        areas = np.bincount(regions.ravel(), minlength=count + 1)
        # Numbers in `parents`, and -1 for what is no region.
        numbers = np.full(count + 1, -1)
        for region, box in enumerate(ndimage.find_objects(regions), 1):
            if areas[region] >= min_area:
                numbers[region] = len(parents)
                parents.append(len(parents))
                boxes.append((frame, box))
        current = numbers[regions]
        if previous is not None:
            both = (previous >= 0) & (current >= 0)
            pairs = np.stack([previous[both], current[both]], axis=1)
            for first, second in np.unique(pairs, axis=0).tolist():
                # The earlier region stays the root.
                low, high = sorted((find(first), find(second)))
                parents[high] = low
        previous = current

    merged: dict[tuple[int, int], list[int]] = {}
    for region, (frame, (rows, columns)) in enumerate(boxes):
        box = [columns.start, rows.start, columns.stop - 1, rows.stop - 1]
        key = find(region), frame
        old = merged.get(key, box)
        merged[key] = [
            *map(min, old[:2], box[:2]),
            *map(max, old[2:], box[2:]),
        ]
    roots = sorted({root for root, _ in merged})
    track_of = {root: track for track, root in enumerate(roots)}
    return sorted(
        (track_of[root], frame, *box) for (root, frame), box in merged.items()
    )
