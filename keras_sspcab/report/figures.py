"""Charts as SVG whose colors are those of the page, in light and in dark."""

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from keras_sspcab.metrics import Curve

#: The light colors of the design of pages, where they follow the theme.
COLORS = {
    "#16191d": "var(--ink)",
    "#565e68": "var(--muted)",
    "#d9dde2": "var(--rule)",
    "#00796b": "var(--normal)",
    "#b03a08": "var(--anomalous)",
    "#1f5fbf": "var(--accent)",
    "#ffffff": "var(--surface)",
}
INK, MUTED, RULE, NORMAL, ANOMALOUS, ACCENT, SURFACE = COLORS

#: What all figures of the package look like.
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "text.color": INK,
    "legend.frameon": False,
}
_IN_PAGES: dict[Any, Any] = {
    "svg.fonttype": "none",
    "axes.grid": True,
    "lines.linewidth": 2,
}
_BINS = 40


def unit_curves(
    name: str,
    curves: Sequence[tuple[str, str, Curve]],
    labels: tuple[str, str],
    chance: bool = False,
    steps: bool = False,
    limit: float | None = None,
) -> str:
    """Draws curves, each a legend, a color and points, in the unit square.

    The area up to x = `limit` is tinted.
    """
    with page_axes(name, (4.2, 3.6)) as (axes, result):
        axes.set(xlabel=labels[0], ylabel=labels[1])
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        if chance:
            axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, ls=":")
        for legend, color, curve in curves:
            axes.plot(
                *curve,
                color=color,
                label=legend,
                drawstyle="steps-pre" if steps else "default",
                ls="-" if color == curves[0][1] else "--",
            )
            if limit is not None:
                x = np.append(curve.x[curve.x < limit], limit)
                axes.fill_between(
                    x,
                    np.interp(x, *curve),
                    color=color,
                    alpha=0.15,
                    linewidth=0,
                )
                axes.axvline(limit, color=MUTED, linewidth=1, ls=":")
        if len(curves) > 1:
            axes.legend(loc="best")
    return result[0]


def score_histogram(
    name: str,
    series: Sequence[tuple[str, str, Sequence[float]]],
    threshold: float | None,
    size: tuple[float, float],
    things: str = "images",
) -> str:
    """Draws how scores are spread; `series` are legend, color and scores."""
    values = np.concatenate([np.asarray(scores) for *_, scores in series])
    low, high, middle = score_range(values, threshold)
    edges = np.linspace(low, high, _BINS + 1)
    if middle is not None:
        first, last = np.arcsinh(low / middle), np.arcsinh(high / middle)
        edges = middle * np.sinh(np.linspace(first, last, _BINS + 1))
        edges[0], edges[-1] = low, high
    with page_axes(name, size) as (axes, result):
        for legend, color, scores in series:
            axes.hist(
                scores,
                edges,
                color=color,
                alpha=0.35,
                label=f"{legend} ({len(scores)})",
            )
            axes.hist(scores, edges, color=color, histtype="step", lw=1.5)
        if threshold is not None:
            axes.axvline(
                threshold, color=INK, lw=1.5, ls="--", label="threshold"
            )
        if middle is not None:
            axes.set_xscale("asinh", linear_width=middle)
            axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.grid(visible=False, axis="x")
        unit = "score, standard deviations above normal"
        axes.set(xlabel=unit, ylabel=things)
        axes.legend(loc="best")
    return result[0]


def score_range(
    values: np.ndarray, threshold: float | None
) -> tuple[float, float, float | None]:
    """Returns both ends of an axis of scores, and the width of its linear part.

    That is None unless it has to be an asinh axis: far outliers would press all
    else into one place on a linear one.
    """
    marks = np.append(values, [] if threshold is None else threshold)
    low, high = float(marks.min()), float(marks.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    middle = max(float(np.median(np.abs(marks))), abs(threshold or 0.0), 1e-6)
    return low, high, middle if high - low > 20 * middle else None


def training_curve(
    name: str,
    series: Sequence[tuple[str, str, np.ndarray]],
    epochs: np.ndarray,
) -> str:
    """Draws losses over epochs; `series` are legend, color, losses or NaN."""
    with page_axes(name, (4.2, 3.2)) as (axes, result):
        for legend, color, values in series:
            kept = np.isfinite(values)
            axes.plot(
                epochs[kept],
                values[kept],
                color=color,
                label=legend,
                marker="o" if kept.sum() == 1 else None,
            )
        finite = np.concatenate([v[np.isfinite(v)] for *_, v in series])
        low, high = finite.min(), finite.max()
        if low > 0 and high > 10 * low:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            # Plain text: formulas are laid out for another font.
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(NullLocator())
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel="epoch")
        axes.legend(loc="upper right")
    return result[0]


@contextlib.contextmanager
def page_axes(
    name: str, size: tuple[float, float]
) -> Iterator[tuple[Any, list[str]]]:
    """Yields axes and a list that holds the SVG when the block has ended."""
    result: list[str] = []
    with matplotlib.rc_context({**STYLE, **_IN_PAGES, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        yield figure.add_subplot(), result
        buffer = io.StringIO()
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None},
        )
    result.append(for_page(buffer.getvalue(), name))


def for_page(svg: str, name: str) -> str:
    """Makes a file of matplotlib's an element of a page, in its colors."""
    svg = svg[svg.index("<svg") :]
    for element in ("metadata", "style"):
        svg = re.sub(rf"<{element}.*?</{element}>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s(xmlns(:\w+)?)=\"[^\"]*\"", "", svg)
    # Identifiers are those of the page now: they must not meet others.
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    svg = svg.replace('xlink:href="#', f'href="#{name}-')
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 var(--font)", svg)
    for color, variable in COLORS.items():
        svg = svg.replace(color, variable)
    # The page says what it shows, and how large it is.
    opening = svg[: svg.index(">")]
    sized = re.sub(r'\s(width|height)="[^"]*"', "", opening)
    sized += ' aria-hidden="true" focusable="false"'
    return sized + svg[len(opening) :].strip()
