"""The figure of a comparison: every seed, with and without the block."""

import itertools
from collections.abc import Iterable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from keras_sspcab import files
from keras_sspcab.compare.grid import OFF, Cell, describe_block
from keras_sspcab.compare.results import Comparison
from keras_sspcab.metrics.registry import Metric
from keras_sspcab.report.figures import (
    ACCENT,
    ANOMALOUS,
    INK,
    MUTED,
    NORMAL,
    RULE,
    STYLE,
    SURFACE,
)

_STYLE: dict[Any, Any] = {
    **STYLE,
    "svg.hashsalt": "comparison",
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.bottom": False,
    "xtick.labelcolor": INK,
}

# Shape and filling tell the blocks apart where colors do not.
_WITHOUT: dict[str, Any] = {
    "marker": "o",
    "color": MUTED,
    "markerfacecolor": SURFACE,
}
_WITH: tuple[dict[str, Any], ...] = (
    {"marker": "o", "color": ACCENT},
    {"marker": "s", "color": NORMAL},
    {"marker": "^", "color": ANOMALOUS},
    {"marker": "D", "color": INK},
)

# With more places than this along the axis, panels are as wide as the figure.
_WIDE = 6
# Smaller differences on the axis would look larger than they are.
_LEAST_SPAN = 2.0


def write_figure(comparison: Comparison, paths: Iterable[str]) -> None:
    """Draws a panel for each metric.

    Each dot is a seed. Thin lines join those of equal class and seed, and a bar
    marks the mean.
    """
    with matplotlib.rc_context(_STYLE):
        figure = _draw(comparison)
        for path in paths:
            is_svg = path.endswith(".svg")
            # Without a date or a version, equal figures are equal files.
            metadata = {"Date": None, "Creator": None} if is_svg else {}
            with files.replacing(path) as temporary:
                figure.savefig(
                    temporary, metadata=metadata or {"Software": None}
                )


def _draw(comparison: Comparison) -> Figure:
    metrics = comparison.metrics
    num_slots = len(_slots(comparison))
    is_wide = num_slots > _WIDE
    num_columns = 1 if is_wide else min(2, len(metrics))
    num_rows = -(-len(metrics) // num_columns)
    width = 1 + 0.42 * num_slots if is_wide else max(3.2, 1 + 0.6 * num_slots)
    figure = Figure(
        figsize=(max(width * num_columns, 6.4), 2.4 * num_rows + 0.8),
        dpi=160,
        layout="constrained",
        facecolor=SURFACE,
    )
    panels = figure.subplots(num_rows, num_columns, squeeze=False)
    for axes, metric in zip(panels.flat, metrics, strict=False):
        _draw_values(axes, comparison, metric)
        # One below the other, they share their labels.
        _label_classes(axes, comparison, not is_wide or metric == metrics[-1])
        _separate_hosts(axes, comparison, not is_wide or metric == metrics[0])
    for axes in panels.flat[len(metrics) :]:
        axes.set_visible(False)
    figure.legend(
        handles=[*_legend(comparison)],
        loc="outside upper center",
        ncols=3,
    )
    return figure


def _slots(comparison: Comparison) -> list[tuple[str, str, tuple[str, ...]]]:
    """Returns the places along the axis: host, class, and blocks there."""
    grid = comparison.grid
    groups: list[tuple[str, ...]] = [(b,) for b in grid.blocks]
    if not comparison.is_crowded:
        groups = [grid.blocks]
    return [*itertools.product(grid.models, grid.classes, groups)]


def _draw_values(axes: Any, comparison: Comparison, metric: Metric) -> None:
    grid, values = comparison.grid, comparison.values(metric.key)
    slots = _slots(comparison)
    marks = _marks(comparison)
    for slot, (model, data_class, blocks) in enumerate(slots):
        distance = 0.7 / max(len(blocks), 2)
        offsets = (np.arange(len(blocks)) - (len(blocks) - 1) / 2) * distance
        for seed in grid.seeds:
            cells = [Cell(data_class, model, b, seed) for b in blocks]
            points = [
                (slot + offset, 100 * values[cell])
                for cell, offset in zip(cells, offsets, strict=True)
                if cell in values
            ]
            if points:
                axes.plot(*np.transpose(points), color=MUTED, lw=0.6, zorder=1)
        for block, offset in zip(blocks, offsets, strict=True):
            cells = [Cell(data_class, model, block, s) for s in grid.seeds]
            heights = [100 * values[cell] for cell in cells if cell in values]
            if not heights:
                continue
            x = slot + offset
            axes.plot(
                np.full(len(heights), x), heights, **marks[block], zorder=2
            )
            half = 0.4 * distance
            axes.plot(
                [x - half, x + half],
                [np.mean(heights)] * 2,
                color=INK,
                lw=2,
                solid_capstyle="butt",
                zorder=3,
            )
    note = "" if metric.higher_is_better else " (lower is better)"
    axes.set_title(f"{metric.title}, %{note}", pad=6)
    axes.set_xlim(-0.5, len(slots) - 0.5)
    _widen(axes)
    axes.grid(visible=True, axis="y")
    axes.yaxis.set_major_formatter("{x:g}")


def _label_classes(axes: Any, comparison: Comparison, is_shown: bool) -> None:
    """Names along the axis what differs there: blocks, classes or hosts."""
    grid = comparison.grid
    names = [data_class for _, data_class, _ in _slots(comparison)]
    if comparison.is_crowded:
        names = [block for _, _, (block,) in _slots(comparison)]
    elif len(grid.classes) == 1:
        names = [*grid.models]
    axes.tick_params(axis="x", length=0)
    if not is_shown:
        axes.set_xticks(range(len(names)), [""] * len(names))
        return
    is_crowded = len(names) > 4 and max(map(len, names)) > 5
    axes.set_xticks(
        range(len(names)),
        [name.replace("_", " ") for name in names],
        rotation=45 if is_crowded else 0,
        ha="right" if is_crowded else "center",
        rotation_mode="anchor",
    )


def _separate_hosts(axes: Any, comparison: Comparison, is_named: bool) -> None:
    """Draws lines between groups, and names them above.

    Groups are hosts, or hosts with a class where blocks are along the axis. The
    title of the panel makes room for the names.
    """
    grid = comparison.grid
    size = len(grid.classes)
    names = list(grid.models)
    if comparison.is_crowded:
        size = len(grid.blocks)
        pairs = itertools.product(grid.models, grid.classes)
        names = [f"{model}, {data_class}" for model, data_class in pairs]
    has_names = size > 1 and len(names) > 1 and is_named
    if has_names:
        axes.set_title(axes.get_title("left"), pad=20)
    for i, name in enumerate(names):
        first = i * size - 0.5
        if i:
            axes.axvline(first, color=RULE, lw=1)
        if has_names:
            axes.annotate(
                name,
                (first + size / 2, 1),
                (0, 4),
                xycoords=axes.get_xaxis_transform(),
                textcoords="offset points",
                ha="center",
                va="bottom",
                color=MUTED,
            )


def _marks(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Returns how the values of each block are drawn."""
    # Where blocks are named along the axis, marks need not tell them apart.
    others = itertools.cycle(_WITH[:1] if comparison.is_crowded else _WITH)
    common = {"ls": "", "ms": 5, "mew": 1.2}
    return {
        block: common | (_WITHOUT if block == OFF else next(others))
        for block in comparison.grid.blocks
    }


def _widen(axes: Any) -> None:
    low, high = axes.get_ylim()
    missing = _LEAST_SPAN - (high - low)
    if missing > 0:
        axes.set_ylim(low - missing / 2, high + missing / 2)


def _legend(comparison: Comparison) -> list[Line2D]:
    marks = []
    if not comparison.is_crowded:
        marks = [
            Line2D([], [], label=describe_block(block), **mark)
            for block, mark in _marks(comparison).items()
        ]
    is_single = len(comparison.grid.seeds) == 1
    mean = "the value" if is_single else "mean over seeds"
    return [*marks, Line2D([], [], color=INK, lw=2, label=mean)]
