"""The tables of figures, in the forms that the SSPCAB paper gives them."""

import itertools
from collections.abc import Sequence
from typing import Protocol

from keras_sspcab.compare.comparison import Comparison
from keras_sspcab.compare.grid import OFF, ON
from keras_sspcab.compare.kinds import Metric
from keras_sspcab.compare.published import MEAN, SOURCE, Figures, published
from keras_sspcab.compare.tables import (
    ARROW,
    NOTHING,
    blocks_in_words,
    markdown,
    percent,
    rows_of,
    summaries_of,
)

#: A header and rows.
Table = tuple[list[str], list[list[str]]]


class Form(Protocol):
    """What stands in the rows and columns of the tables of figures."""

    def describe(self, blocks: str) -> str:
        """Says what the figures are.

        Args:
            blocks: The blocks in words, in their order.
        """

    def describe_means(self, num_seeds: int) -> str:
        """Says what is averaged over several seeds."""

    def results(self, comparison: Comparison) -> Table:
        """Returns the results."""

    def published(self, comparison: Comparison, suffix: str) -> Table | None:
        """Returns the paper's figures for what is compared, if it has any."""


class ClassRows:
    """As Table 2: classes, then means of groups, below each other.

    Columns are hosts and metrics, with the values of all blocks in a cell.
    """

    def describe(self, blocks: str) -> str:
        """Says that blocks stand side by side."""
        return f"Percent, {blocks} the block"

    def describe_means(self, num_seeds: int) -> str:
        """Says what is averaged over several seeds, and over classes."""
        return (
            f"Mean ± sample standard deviation over {num_seeds} seeds. The "
            "means of several classes are taken for each seed first; seeds "
            "that lack a class do not count."
        )

    def results(self, comparison: Comparison) -> Table:
        """Returns the results."""
        columns = self._columns(comparison)
        num_seeds = len(comparison.grid.seeds)
        rows = []
        for name, classes in rows_of(comparison).items():
            found = [
                summaries_of(comparison, metric.key, classes, model)
                for model, metric in columns
            ]
            texts = [
                ARROW.join(percent(summary, num_seeds) for summary in summaries)
                for summaries in found
            ]
            rows.append([name, *texts])
        return self._header(comparison, columns), rows

    def published(self, comparison: Comparison, suffix: str) -> Table | None:
        """Returns the paper's figures, and its means of all classes."""
        columns = [
            (model, metric)
            for model, metric in self._columns(comparison)
            if published(model + suffix, metric.key, MEAN)
        ]

        def figures(name: str) -> list[Figures | None]:
            return [published(m + suffix, k.key, name) for m, k in columns]

        def row(title: str, name: str) -> list[str]:
            texts = []
            for pair, (_, metric) in zip(figures(name), columns, strict=True):
                sides = [_figure(pair, side, metric) for side in (0, 1)]
                texts.append(ARROW.join(sides) if pair else NOTHING)
            return [title, *texts]

        classes = comparison.grid.classes
        rows = [row(name, name) for name in classes if any(figures(name))]
        if not rows:
            return None
        rows.append(row(f"*{comparison.kind.published_mean}*", MEAN))
        return self._header(comparison, columns), rows

    def _columns(self, comparison: Comparison) -> list[tuple[str, Metric]]:
        models, metrics = comparison.grid.models, comparison.metrics
        return list(itertools.product(models, metrics))

    def _header(
        self, comparison: Comparison, columns: Sequence[tuple[str, Metric]]
    ) -> list[str]:
        titles = [f"{model}: {metric.title}" for model, metric in columns]
        return [comparison.kind.words.short, *titles]


class HostRows:
    """As Table 3: hosts below each other, each without and with the block.

    Columns are data sets and metrics. There are no means of data sets.
    """

    def describe(self, blocks: str) -> str:
        """Says that the figures are percent: the rows name the blocks."""
        return "Percent"

    def describe_means(self, num_seeds: int) -> str:
        """Says what is averaged over several seeds."""
        return f"Mean ± sample standard deviation over {num_seeds} seeds."

    def results(self, comparison: Comparison) -> Table:
        """Returns the results."""
        grid, columns = comparison.grid, self._columns(comparison)
        rows = []
        for model in grid.models:
            found = [
                summaries_of(comparison, metric.key, [name], model)
                for name, metric in columns
            ]
            for number, block in enumerate(grid.blocks):
                texts = [percent(s[number], len(grid.seeds)) for s in found]
                rows.append([_row_name(model, block), *texts])
        return self._header(columns), rows

    def published(self, comparison: Comparison, suffix: str) -> Table | None:
        """Returns the paper's figures."""
        models = comparison.grid.models
        columns = [
            (name, metric)
            for name, metric in self._columns(comparison)
            if any(published(m + suffix, metric.key, name) for m in models)
        ]
        rows = []
        for model in models:
            found = [published(model + suffix, k.key, n) for n, k in columns]
            if not any(found):
                continue
            for side, block in enumerate((OFF, ON)):
                texts = [
                    _figure(pair, side, metric)
                    for pair, (_, metric) in zip(found, columns, strict=True)
                ]
                rows.append([_row_name(model, block), *texts])
        return (self._header(columns), rows) if rows else None

    def _columns(self, comparison: Comparison) -> list[tuple[str, Metric]]:
        classes, metrics = comparison.grid.classes, comparison.metrics
        return list(itertools.product(classes, metrics))

    def _header(self, columns: Sequence[tuple[str, Metric]]) -> list[str]:
        titles = [f"{name}: {metric.title}" for name, metric in columns]
        return ["host", *titles]


#: By `Kind.rows`.
FORMS: dict[str, Form] = {"classes": ClassRows(), "hosts": HostRows()}


def form_of(comparison: Comparison) -> Form:
    """Returns the form of the tables of a comparison."""
    return FORMS[comparison.kind.rows]


def result_table(comparison: Comparison) -> str:
    """Returns the table of results."""
    return markdown(*form_of(comparison).results(comparison))


def describe_results(comparison: Comparison) -> str:
    """Says what the figures of the table of results are."""
    return form_of(comparison).describe(blocks_in_words(comparison))


def published_table(comparison: Comparison, suffix: str = "") -> str | None:
    """Returns the paper's figures for the classes and hosts present.

    Args:
        comparison: What to show them beside.
        suffix: `":ensemble"` for those of ensembles.

    Returns:
        A table and its source; None if the paper has no such figures.
    """
    table = form_of(comparison).published(comparison, suffix)
    if table is None:
        return None
    source = f"{SOURCE}, {comparison.kind.published_in}"
    return f"{markdown(*table)}\n\nSource: {source}."


def _row_name(model: str, block: str) -> str:
    """Names a host, such as `mnad + SSPCAB`."""
    if block == OFF:
        return model
    place = "" if block == ON else f" ({block})"
    return f"{model} + SSPCAB{place}"


def _figure(pair: Figures | None, side: int, metric: Metric) -> str:
    """Formats a figure with the digits that the paper gives."""
    if pair is None:
        return NOTHING
    return f"{pair[side]:.{metric.published_digits}f}"
