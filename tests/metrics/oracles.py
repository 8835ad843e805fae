"""Slow definitions, written apart from the library, to compare it with."""

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
    """Lists of (row, column), 8 neighbours, by hand."""
    todo = {(int(r), int(c)) for r, c in np.argwhere(mask)}
    components = []
    while todo:
        stack, component = [todo.pop()], []
        while stack:
            row, column = stack.pop()
            component.append((row, column))
            for i, j in itertools.product((-1, 0, 1), repeat=2):
                neighbour = (row + i, column + j)
                if neighbour in todo:
                    todo.remove(neighbour)
                    stack.append(neighbour)
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
