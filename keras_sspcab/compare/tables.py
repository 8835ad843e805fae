"""What the tables of a comparison hold, as numbers and as Markdown."""

from collections.abc import Iterable, Sequence

from keras_sspcab.compare.comparison import Comparison
from keras_sspcab.compare.grid import OFF, ON
from keras_sspcab.compare.statistics import (
    LEVEL,
    MIN_PAIRS,
    PairedDifference,
    Summary,
    means_by_seed,
    paired_difference,
    summarize,
)

ARROW = " → "
NOTHING = "-"

_BLOCKS = {OFF: "without", ON: "with"}


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table, its first column to the left."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"
        for line in lines
    )


def rows_of(comparison: Comparison) -> dict[str, list[str]]:
    """Returns the rows of the table of results, with the classes of each.

    Means come only where they are no repetition: of a group if there are
    several, over all if there are several classes.
    """
    classes = comparison.grid.classes
    rows = {name: [name] for name in classes}
    groups = comparison.kind.grouped(classes)
    if len(groups) > 1:
        rows |= {f"*{name} mean*": found for name, found in groups.items()}
    if len(classes) > 1:
        rows["*overall mean*"] = list(classes)
    return rows


def summaries_of(
    comparison: Comparison, key: str, classes: Sequence[str], model: str
) -> list[Summary | None]:
    """Returns mean and spread over seeds for each block.

    Args:
        comparison: The results.
        key: The metric.
        classes: What each seed is averaged over. Classes that have no such
            metric at all are left out.
        model: The host.
    """
    without = comparison.classes_without(key)
    counted = [name for name in classes if name not in without]
    values, grid = comparison.values(key), comparison.grid
    return [
        summarize(means_by_seed(values, counted, model, block, grid.seeds))
        for block in grid.blocks
    ]


def percent(summary: Summary | None, num_seeds: int) -> str:
    """Formats `mean ± std` in percent, with the count if seeds are missing."""
    if summary is None:
        return NOTHING
    text = f"{100 * summary.mean:.1f}"
    if summary.std is not None:
        text += f" ± {100 * summary.std:.1f}"
    if summary.count < num_seeds:
        text += f" ({summary.count} of {num_seeds})"
    return text


def blocks_in_words(comparison: Comparison) -> str:
    """Says what stands on which side of the arrows."""
    return ARROW.join(
        _BLOCKS.get(block, block) for block in comparison.grid.blocks
    )


def difference_table(comparison: Comparison) -> str:
    """Returns the paired differences, in percentage points."""
    rows = []
    for (model, block, title), found in differences(comparison).items():
        what = f"{block} - {comparison.grid.reference}"
        if found is None:
            cells = [NOTHING, NOTHING, NOTHING, "0"]
        else:
            cells = [
                signed(found.mean),
                interval(found),
                detectable(found),
                str(found.count),
            ]
        rows.append([model, title, what, *cells])
    header = [
        "host",
        "metric",
        "blocks",
        "mean difference",
        f"{100 * LEVEL:.0f} % interval",
        "detectable",
        "pairs",
    ]
    return markdown(header, rows)


def differences(
    comparison: Comparison,
) -> dict[tuple[str, str, str], PairedDifference | None]:
    """Returns the paired differences by host, block and title of metric."""
    grid = comparison.grid
    return {
        (model, block, metric.title): paired_difference(
            comparison.values(metric.key), model, grid.reference, block
        )
        for model in grid.models
        for block in grid.blocks
        if block != grid.reference
        for metric in comparison.metrics
    }


def signed(value: float) -> str:
    """Formats a difference in percentage points, such as `+1.3`."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def interval(difference: PairedDifference) -> str:
    """Formats an interval, or says why there is none."""
    if difference.interval is None:
        pairs = (
            "1 pair" if difference.count == 1 else f"{difference.count} pairs"
        )
        return f"no interval: {pairs}, at least {MIN_PAIRS} needed"
    low, high = difference.interval
    return f"{signed(low)} to {signed(high)}"


def detectable(difference: PairedDifference) -> str:
    """Formats the smallest difference that the pairs are likely to show."""
    if difference.detectable is None:
        return NOTHING
    return f"{100 * difference.detectable:.1f}"
