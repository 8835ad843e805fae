"""The scores of a video over time, as SVG."""

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import FixedLocator, NullLocator

from keras_sspcab.metrics import Curve
from keras_sspcab.report import figures
from keras_sspcab.report.figures import ACCENT, ANOMALOUS, INK, NORMAL

_MAX_POINTS = 600
# Marker and color of a key frame, by whether its verdict was right.
_MARKERS = {
    True: ("o", NORMAL),
    False: ("X", ANOMALOUS),
    None: ("D", INK),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Timeline:
    """What is drawn.

    Attributes:
        frames: Number of each frame, rising, int array `(n,)`, n at least 1.
        scores: Its score, array `(n,)`.
        threshold: Where the line is drawn, or None.
        truth: First and last frame of each abnormal stretch.
        marks: Frame, score and whether the verdict is right (None if unknown)
            of each key frame.
    """

    frames: np.ndarray
    scores: np.ndarray
    threshold: float | None
    truth: Sequence[tuple[int, int]]
    marks: Sequence[tuple[int, float, bool | None]]


def draw(name: str, content: Timeline, size: tuple[float, float]) -> str:
    """Draws a timeline.

    Args:
        name: Identifier, unique in the page.
        content: What is drawn.
        size: Width and height in inches, at which text has 10 points.

    Returns:
        An `<svg>` element.
    """
    curve = thin_extremes(content.frames, content.scores, _MAX_POINTS)
    low, high, middle = figures.score_range(content.scores, content.threshold)
    first, last = int(content.frames[0]), int(content.frames[-1])
    with figures.page_axes(name, size) as (axes, result):
        axes.broken_barh(
            [(start - 0.5, end - start + 1) for start, end in content.truth],
            (0, 1),
            transform=axes.get_xaxis_transform(),
            color=ANOMALOUS,
            alpha=0.18,
            linewidth=0,
        )
        axes.plot(
            *curve,
            color=ACCENT,
            linewidth=1.4,
            marker="." if len(curve.x) == 1 else None,
        )
        if content.threshold is not None:
            axes.axhline(content.threshold, color=INK, lw=1.2, ls="--")
        for frame, score, is_right in content.marks:
            marker, color = _MARKERS[is_right]
            axes.plot(
                frame, score, marker, color=color, markersize=7, clip_on=False
            )
        if middle is not None:
            axes.set_yscale("asinh", linear_width=middle)
            axes.yaxis.set_major_locator(
                FixedLocator(_ticks(low, high, middle))
            )
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlim(first - 0.5, last + 0.5)
        axes.set_ylim(*_with_margin(low, high, middle))
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(visible=False, axis="x")
        axes.set(xlabel="frame", ylabel="score")
    return _with_short_numbers(result[0])


def thin_extremes(x: np.ndarray, y: np.ndarray, max_points: int) -> Curve:
    """Keeps the smallest and the largest value of each stretch of a curve.

    Peaks stay as high as they are, in their place, however thin they are; both
    ends stay as well.

    Args:
        x: Array `(n,)`, rising.
        y: Array `(n,)`.
        max_points: How many points remain at most, at least 4.

    Returns:
        The kept points. All of them if there are no more than `max_points`.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.size <= max_points:
        return Curve(x, y)
    num_bins = (max_points - 2) // 2
    kept = {0, x.size - 1}
    for part in np.array_split(np.arange(x.size), num_bins):
        kept |= {int(part[y[part].argmin()]), int(part[y[part].argmax()])}
    order = sorted(kept)
    return Curve(x[order], y[order])


def _with_margin(
    low: float, high: float, middle: float | None
) -> tuple[float, float]:
    """Returns the ends of the axis with some room, on its own scale."""
    if middle is None:
        room = 0.06 * (high - low)
        return low - room, high + room
    ends = np.arcsinh(np.array([low, high]) / middle)
    room = 0.06 * (ends[1] - ends[0])
    lowest, highest = middle * np.sinh(ends + np.array([-room, room]))
    return float(lowest), float(highest)


def _ticks(low: float, high: float, middle: float) -> list[float]:
    """Returns powers of ten and their negatives that are far enough apart."""
    largest = math.ceil(math.log10(max(abs(low), abs(high))))
    powers = [
        10.0**n for n in range(largest, math.floor(math.log10(middle)), -1)
    ]
    candidates = [0.0, *powers, *(-power for power in powers)]
    ends = np.arcsinh(np.array([low, high]) / middle)
    chosen: list[float] = []
    for value in candidates:
        gaps = np.abs(
            np.arcsinh(np.array(chosen) / middle) - np.arcsinh(value / middle)
        )
        is_inside = low <= value <= high
        if is_inside and np.all(gaps > 0.12 * (ends[1] - ends[0])):
            chosen.append(value)
    return sorted(chosen)


def _with_short_numbers(svg: str) -> str:
    """Rounds coordinates to a tenth of a point, finer than any screen."""
    return re.sub(
        r"\d+\.\d{2,}",
        lambda match: f"{float(match[0]):.1f}".removesuffix(".0"),
        svg,
    )
