"""Scores of a new video: below its frames, and in a plot as papers have."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from PIL import Image, ImageDraw, ImageFont

from keras_sspcab import files
from keras_sspcab.pictures.heat import overlay

# Smaller frames are enlarged by a whole factor, so that text can be read.
_LEAST_WIDTH = 320
_STRIP = 64
_MARGIN = 4

_BACKGROUND = (24, 24, 27)
_TEXT = (235, 235, 235)
_CURVE = (120, 190, 255)
_ALARM = (255, 90, 70)
_LIMIT = (160, 160, 160)


def annotate_frame(
    frame: Any,
    scores: Sequence[float],
    threshold: float | None = None,
    anomaly_map: Any = None,
    scale: float = 1.0,
    boxes: Iterable[Sequence[float]] = (),
    text: str = "",
    is_alarm: bool = False,
) -> np.ndarray:
    """Draws a frame with its anomaly map, boxes, and the scores so far.

    The curve is below the frame, the latest score at its right end, red where
    it reaches the threshold. Frames below 320 pixels of width are enlarged.
    Scores are those up to this frame, NaN where there is none. `scale` is the
    map value of the strongest color; `boxes` are `(x_min, y_min, x_max, y_max)`
    in pixels of the frame, both ends included. The frame is red if `is_alarm`.
    """
    if not len(scores):
        raise ValueError(
            "There must be one score a frame up to this one. Received: none"
        )
    pixels = np.asarray(frame)
    factor = max(1, -(-_LEAST_WIDTH // pixels.shape[1]))
    pixels = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    if anomaly_map is None:
        # No colors, but the checks.
        anomaly_map = np.zeros(pixels.shape[:2])
    pixels = overlay(pixels, anomaly_map, scale)
    height, width = pixels.shape[:2]
    picture = Image.new("RGB", (width, height + _STRIP), _BACKGROUND)
    picture.paste(Image.fromarray(pixels), (0, 0))
    draw = ImageDraw.Draw(picture)
    for x_min, y_min, x_max, y_max in boxes:
        corners = (x_min, y_min, x_max + 1, y_max + 1)
        x_0, y_0, x_1, y_1 = (factor * corner for corner in corners)
        draw.rectangle((x_0, y_0, x_1 - 1, y_1 - 1), outline=_ALARM, width=2)
    _draw_strip(draw, np.asarray(scores, "float64"), threshold, width, height)
    score = scores[-1]
    value = "no score yet" if np.isnan(score) else f"score {score:.2f}"
    draw.text(
        (_MARGIN, height + 2),
        f"{text}  {value}".strip(),
        fill=_ALARM if is_alarm else _TEXT,
        font=ImageFont.load_default(),
    )
    if is_alarm:
        draw.rectangle((0, 0, width - 1, height - 1), outline=_ALARM, width=3)
    return np.asarray(picture)


def _draw_strip(
    draw: ImageDraw.ImageDraw,
    scores: np.ndarray,
    threshold: float | None,
    width: int,
    top: int,
) -> None:
    """Draws as many of the latest scores as fit, two pixels each."""
    shown = scores[-max(2, (width - 2 * _MARGIN) // 2) :]
    finite = shown[np.isfinite(shown)]
    limit = 0.0 if threshold is None else 2.0 * threshold
    high = max([limit, *finite]) if finite.size else max(limit, 1.0)
    low = min([0.0, *finite])
    high = max(high, low + 1e-6)
    upper, lower = top + 16, top + _STRIP - _MARGIN

    def y_of(value: float) -> float:
        return lower - (value - low) / (high - low) * (lower - upper)

    right = width - _MARGIN
    if threshold is not None:
        y = y_of(threshold)
        for x in range(_MARGIN, right, 8):
            draw.line((x, y, x + 4, y), fill=_LIMIT)
    for i in range(1, len(shown)):
        pair = shown[i - 1 : i + 1]
        if not np.isfinite(pair).all():
            continue
        x = right - 2 * (len(shown) - 1 - i)
        is_alarm = threshold is not None and pair[1] >= threshold
        draw.line(
            (x - 2, y_of(pair[0]), x, y_of(pair[1])),
            fill=_ALARM if is_alarm else _CURVE,
            width=2,
        )


_PLOT_SCORE, _PLOT_ALARM = "#1f5fa8", "#c8321f"


def save_score_plot(
    path: str,
    frames: Sequence[int],
    scores: Sequence[float] | np.ndarray,
    threshold: float | None = None,
    pictures: Mapping[int, Any] | None = None,
    seconds: Sequence[float] | None = None,
    title: str = "",
) -> None:
    """Draws scores over frames, with key frames above, as PNG, SVG or PDF.

    Frames from the threshold on are red; `pictures` are uint8 frames by
    position. With `seconds`, at which the frames are shown, there is an axis of
    them.
    """
    x, y = np.asarray(frames), np.asarray(scores, "float64")
    if x.shape != y.shape or not x.size:
        raise ValueError(
            "There must be one score a frame, and at least one. Received: "
            f"{x.size} frames and {y.size} scores"
        )
    shown = dict(sorted((pictures or {}).items()))
    figure = Figure(figsize=(9, 4.6 if shown else 3.2), layout="constrained")
    grid = figure.add_gridspec(
        2 if shown else 1,
        max(1, len(shown)),
        height_ratios=(1, 1.6) if shown else None,
    )
    axes = figure.add_subplot(grid[-1, :])
    axes.plot(x, y, color=_PLOT_SCORE, linewidth=1.2, label="score")
    if threshold is not None:
        axes.plot(
            x,
            np.where(y >= threshold, y, np.nan),
            color=_PLOT_ALARM,
            linewidth=2,
            marker=".",
            markersize=3,
            label="from the threshold on",
        )
        axes.axhline(threshold, color="0.3", ls="--", lw=1, label="threshold")
    axes.set(xlabel="frame", ylabel="score (standard deviations)")
    axes.set_xlim(x[0], max(x[-1], x[0] + 1))
    axes.grid(visible=True, color="0.9", linewidth=0.6)
    axes.legend(loc="best", framealpha=0.8, fontsize=8)
    if seconds is not None and len(seconds) > 1:
        # Frames need not follow each other at one pace.
        functions: Any = (
            lambda frames: np.interp(frames, x, seconds),
            lambda times: np.interp(times, seconds, x),
        )
        upper = axes.secondary_xaxis("top", functions=functions)
        upper.set_xlabel("seconds", fontsize=8)
        upper.tick_params(labelsize=8)
    for column, (frame, pixels) in enumerate(shown.items()):
        above = figure.add_subplot(grid[0, column])
        above.imshow(pixels)
        above.set(xticks=[], yticks=[])
        above.set_title(f"frame {frame}", fontsize=8)
        at = int(np.argmin(np.abs(x - frame)))
        figure.add_artist(
            ConnectionPatch(
                (0.5, 0),
                (x[at], y[at]),
                above.transAxes,
                axes.transData,
                color="0.6",
                linewidth=0.8,
            )
        )
    if title:
        figure.suptitle(title, fontsize=11)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
