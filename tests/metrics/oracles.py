"""Slow definitions, written apart from the library, to compare it with."""

import collections
import itertools

import numpy as np


def pair_counting_auroc(labels, scores):
    positives = [s for t, s in zip(labels, scores, strict=True) if t]
    negatives = [s for t, s in zip(labels, scores, strict=True) if not t]
    wins = sum(
        1.0 if p > n else 0.5 if p == n else 0.0
        for p, n in itertools.product(positives, negatives)
    )
    return wins / (len(positives) * len(negatives))


def flood_fill_components(mask):
    """Lists of (row, column), 8 neighbors, by hand."""
    todo = {(int(r), int(c)) for r, c in np.argwhere(mask)}
    components = []
    while todo:
        stack, component = [todo.pop()], []
        while stack:
            row, column = stack.pop()
            component.append((row, column))
            for i, j in itertools.product((-1, 0, 1), repeat=2):
                neighbor = (row + i, column + j)
                if neighbor in todo:
                    todo.remove(neighbor)
                    stack.append(neighbor)
        components.append(component)
    return components


def pro_points(masks, maps):
    """(fpr, pro) at every distinct score of any pixel, from the top down."""
    regions = [
        (index, component)
        for index, mask in enumerate(masks)
        for component in flood_fill_components(mask)
    ]
    normal = np.concatenate([m[~k] for k, m in zip(masks, maps, strict=True)])
    every = np.unique(np.concatenate([np.ravel(m) for m in maps]))[::-1]
    points = [(0.0, 0.0)]
    for threshold in every:
        overlaps = [
            np.mean([maps[i][pixel] >= threshold for pixel in component])
            for i, component in regions
        ]
        points.append((np.mean(normal >= threshold), np.mean(overlaps)))
    return points


def brute_force_aupro(masks, maps, limit):
    area = 0.0
    points = pro_points(masks, maps)
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit or x1 == x0:
            continue
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            x1 = limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def sentinel_auroc(labels, scores):
    return pair_counting_auroc([0, *labels, 1], [0.0, *scores, 1.0])


def inclusive_iou(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + 1, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + 1, 0)
    area_a, area_b = ((c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b))
    return width * height / (area_a + area_b - width * height)


def slow_rbdc_tbdc(
    detections, tracks, num_frames, iou_threshold=0.1, track_threshold=0.1
):
    """RBDC, TBDC and the points of the curve, detection by detection.

    Detections are rows (video, frame, x_min, y_min, x_max, y_max, score),
    tracks rows (video, track, frame, x_min, y_min, x_max, y_max).
    """
    lengths = collections.Counter((row[0], row[1]) for row in tracks)
    hits = collections.Counter()
    found = set()
    true_positives = false_positives = 0
    points = [(0.0, 0.0, 0.0)]
    for video, frame, *box, _ in sorted(detections, key=lambda row: -row[-1]):
        overlapped = [
            index
            for index, row in enumerate(tracks)
            if (row[0], row[2]) == (video, frame)
            and inclusive_iou(box, row[3:]) >= iou_threshold
        ]
        if not overlapped:
            false_positives += 1
        for index in overlapped:
            if index not in found:
                found.add(index)
                true_positives += 1
                hits[tracks[index][:2]] += 1
        satisfied = sum(
            hits[track] / length >= track_threshold
            for track, length in lengths.items()
        )
        points.append(
            (
                false_positives / num_frames,
                true_positives / len(tracks),
                satisfied / len(lengths),
            )
        )
    points = [point for point in points if point[0] <= 1]
    if points[-1][0] != 1:
        points.append((1.0, *points[-1][1:]))
    rbdc = tbdc = 0.0
    for (x0, r0, t0), (x1, r1, t1) in itertools.pairwise(points):
        rbdc += (x1 - x0) * (r0 + r1) / 2
        tbdc += (x1 - x0) * (t0 + t1) / 2
    return rbdc, tbdc, points
