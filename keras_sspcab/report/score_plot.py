"""A figure of the scores of a video over time, as papers show them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch

from keras_sspcab.runs import files

_SCORE = "#1f5fa8"
_ALARM = "#c8321f"


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
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2 if shown else 1,
        max(1, len(shown)),
        height_ratios=(1, 1.6) if shown else None,
    )
    axes = figure.add_subplot(grid[-1, :])
    axes.plot(x, y, color=_SCORE, linewidth=1.2, label="score")
    if threshold is not None:
        axes.plot(
            x,
            np.where(y >= threshold, y, np.nan),
            color=_ALARM,
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
