"""The tables of a comparison, in the forms that the SSPCAB paper gives them.

As its Table 2, with classes and means of groups in the rows, hosts and metrics
in the columns and the values of all blocks in a cell; or as its Table 3, with
hosts in the rows, each without and with the block, and data sets and metrics in
the columns. `Comparison.rows` says which.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

from keras_sspcab.compare.grid import OFF, ON
from keras_sspcab.compare.published import MEAN, SOURCE, TABLES
from keras_sspcab.compare.results import Comparison
from keras_sspcab.compare.statistics import (
    LEVEL,
    MIN_PAIRS,
    MeanAndSpread,
    PairedDifference,
    means_by_seed,
    paired_difference,
    summarize,
)
from keras_sspcab.metrics.registry import Metric

ARROW = " → "
NOTHING = "-"

_BLOCKS = {OFF: "without", ON: "with"}

#: Texts of one class, host and metric, one for each block; None for nothing.
TextsOf = Callable[[str, str, Metric], Sequence[str] | None]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table, its first column to the left."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"
        for line in lines
    )


def blocks_in_words(blocks: Iterable[str]) -> str:
    """Says what stands on which side of the arrows."""
    return ARROW.join(_BLOCKS.get(block, block) for block in blocks)


def describe_numbers(rows: str, blocks: Iterable[str]) -> str:
    """Says what the numbers of a table are."""
    if rows == "hosts":
        return "Percent"
    return f"Percent, {blocks_in_words(blocks)} the block"


def result_table(comparison: Comparison) -> str:
    """Returns the table of results.

    Means come only where they are no repetition: of a group if there are
    several, over all if there are several classes.
    """
    rows = rows_of(comparison)
    num_seeds = len(comparison.grid.seeds)

    def texts_of(row: str, model: str, metric: Metric) -> list[str]:
        summaries = summaries_of(comparison, metric.key, rows[row], model)
        return [percent(summary, num_seeds) for summary in summaries]

    return _arrange(comparison, list(rows), comparison.grid.blocks, texts_of)


def published_table(comparison: Comparison, suffix: str = "") -> str | None:
    """Returns the paper's results for the classes and hosts present."""
    grid = comparison.grid
    paper = comparison.published or TABLES[comparison.kind.name]
    mean = f"*{paper.mean}*"

    def texts_of(row: str, model: str, metric: Metric) -> Sequence[str] | None:
        name = MEAN if row == mean else row
        texts = paper.texts(model + suffix, metric.key, name)
        return [texts.get(b, NOTHING) for b in paper.blocks] if texts else None

    names = [
        name
        for name in grid.classes
        for model, metric in itertools.product(grid.models, comparison.metrics)
        if paper.texts(model + suffix, metric.key, name)
    ]
    if not names and comparison.published is not None:
        # Asked for by itself: beside other data than the paper's.
        names = list(paper.classes)
    if not names:
        return None
    rows = [*dict.fromkeys(names), *([mean] if paper.mean else [])]
    table = _arrange(comparison, rows, paper.blocks, texts_of)
    return f"{table}\n\nSource: {SOURCE}, {paper.where}."


def _arrange(
    comparison: Comparison,
    names: Sequence[str],
    blocks: Sequence[str],
    texts_of: TextsOf,
) -> str:
    """Returns a table without the columns and hosts that have no texts."""
    models, metrics = comparison.grid.models, comparison.metrics
    is_by_class = comparison.rows == "classes"
    above, beside = (models, names) if is_by_class else (names, models)

    def texts(row: str, column: str, metric: Metric) -> Sequence[str] | None:
        pair = (row, column) if is_by_class else (column, row)
        return texts_of(*pair, metric)

    columns = [
        (column, metric)
        for column, metric in itertools.product(above, metrics)
        if any(texts(row, column, metric) for row in beside)
    ]
    lines = []
    for row in beside:
        cells = [texts(row, *column) for column in columns]
        if not any(cells):
            continue
        if is_by_class:
            joined = [ARROW.join(cell) if cell else NOTHING for cell in cells]
            lines.append([row, *joined])
            continue
        for number, block in enumerate(blocks):
            own = [cell[number] if cell else NOTHING for cell in cells]
            lines.append([_host_row(row, block), *own])
    titles = [f"{column}: {metric.title}" for column, metric in columns]
    data_class = comparison.kind.nouns.data_class
    corner = data_class if is_by_class else "host"
    return markdown([corner, *titles], lines)


def _host_row(model: str, block: str) -> str:
    """Names a host, such as `mnad + SSPCAB`."""
    names = {OFF: model, ON: f"{model} + SSPCAB"}
    return names.get(block, f"{model} + {block}")


def rows_of(comparison: Comparison) -> dict[str, list[str]]:
    """Returns what numbers are averaged over, by name of the row."""
    classes = comparison.grid.classes
    rows = {name: [name] for name in classes}
    if comparison.rows == "classes":
        groups = comparison.kind.group_classes(classes)
        if len(groups) > 1:
            rows |= {f"*{name} mean*": group for name, group in groups.items()}
        if len(classes) > 1:
            rows["*overall mean*"] = list(classes)
    return rows


def summaries_of(
    comparison: Comparison, key: str, classes: Sequence[str], model: str
) -> list[MeanAndSpread | None]:
    """Returns mean and spread over seeds for each block.

    Classes that have no such metric at all are left out.
    """
    without = comparison.classes_without(key)
    counted = [name for name in classes if name not in without]
    values, grid = comparison.values(key), comparison.grid
    return [
        summarize(means_by_seed(values, counted, model, block, grid.seeds))
        for block in grid.blocks
    ]


def percent(summary: MeanAndSpread | None, num_seeds: int) -> str:
    """Formats `mean ± std` in percent, with the count if seeds are missing."""
    if summary is None:
        return NOTHING
    text = f"{100 * summary.mean:.1f}"
    if summary.std is not None:
        text += f" ± {100 * summary.std:.1f}"
    if summary.count < num_seeds:
        text += f" ({summary.count} of {num_seeds})"
    return text


DIFFERENCE_TITLES = (
    "mean difference",
    f"{100 * LEVEL:.0f} % interval",
    "detectable",
    "pairs",
)
_SINGULAR = {"seeds": "seed", "classes": "class"}


def difference_table(comparison: Comparison) -> str:
    """Returns the paired differences, in percentage points."""
    rows = [
        [
            model,
            metric.title,
            f"{block} - {comparison.grid.reference}",
            *difference_cells(difference),
        ]
        for (model, metric), by_block in differences(comparison).items()
        for block, difference in by_block.items()
    ]
    return markdown(["host", "metric", "blocks", *DIFFERENCE_TITLES], rows)


def differences(
    comparison: Comparison,
) -> Mapping[tuple[str, Metric], dict[str, PairedDifference | None]]:
    """Returns the paired differences of each block, by host and metric."""
    grid = comparison.grid
    others = [block for block in grid.blocks if block != grid.reference]
    return {
        (model, metric): {
            block: paired_difference(
                comparison.values(metric.key), model, grid.reference, block
            )
            for block in others
        }
        for model, metric in itertools.product(grid.models, comparison.metrics)
    }


def difference_cells(difference: PairedDifference | None) -> list[str]:
    """Formats a difference for the columns `DIFFERENCE_TITLES`."""
    if difference is None:
        return [NOTHING, NOTHING, NOTHING, "0"]
    unit, count = difference.unit, difference.count
    if count == 1:
        unit = _SINGULAR[unit]
    pairs = f"{difference.pairs}, of {count} {unit}"
    if difference.interval is None or difference.detectable is None:
        interval = f"no interval: {count} {unit}, at least {MIN_PAIRS} needed"
        detectable = NOTHING
    else:
        interval = " to ".join(map(signed, difference.interval))
        detectable = f"{100 * difference.detectable:.1f}"
    return [signed(difference.mean), interval, detectable, pairs]


def signed(value: float) -> str:
    """Formats a difference in percentage points, such as `+1.3`."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text
