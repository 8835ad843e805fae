"""The files of a comparison: two tables, a page of them, and a figure."""

import os
from collections.abc import Sequence
from typing import Any

from keras_sspcab.compare import forms, tables
from keras_sspcab.compare.comparison import Comparison
from keras_sspcab.compare.figure import write_figure
from keras_sspcab.compare.grid import Cell
from keras_sspcab.compare.statistics import LEVEL, MIN_PAIRS, POWER
from keras_sspcab.runs import files

_COSTS = ("training_seconds", "parameters")
_PICTURES = ("png", "svg")


def write_outputs(
    root: str, comparison: Comparison, conditions: Sequence[str]
) -> list[str]:
    """Writes `comparison.csv`, `.md`, `.png` and `.svg`, each at once.

    Args:
        root: The folder of the comparison.
        comparison: The results so far.
        conditions: How they were measured, one line each.

    Returns:
        The paths of the files.
    """
    os.makedirs(root, exist_ok=True)
    paths = [os.path.join(root, "comparison.csv")]
    axes = (_class_column(comparison), "model", "block")
    _write_csv(paths[0], comparison, (*axes, "seed"), _COSTS)
    ensembles = comparison.of_ensembles()
    if ensembles is not None:
        paths.append(os.path.join(root, "comparison-ensembles.csv"))
        _write_csv(paths[-1], ensembles, axes)
    paths.append(os.path.join(root, "comparison.md"))
    files.write_text(paths[-1], page(comparison, conditions))
    if comparison.results and comparison.metrics:
        pictures = [os.path.join(root, f"comparison.{s}") for s in _PICTURES]
        write_figure(comparison, pictures)
        paths += pictures
    return paths


def page(comparison: Comparison, conditions: Sequence[str]) -> str:
    """Returns `comparison.md`.

    Args:
        comparison: The results so far.
        conditions: How they were measured, one line each.
    """
    grid = comparison.grid
    parts = [
        f"# {', '.join(grid.models)}: {tables.blocks_in_words(comparison)} "
        "SSPCAB",
        *_results(comparison),
        *_published(comparison),
        *_differences(comparison),
        *_ensembles(comparison),
        "## Conditions",
        "\n".join(f"- {line}" for line in conditions),
    ]
    return "\n\n".join(parts) + "\n"


def _results(comparison: Comparison) -> list[str]:
    grid, num_seeds = comparison.grid, len(comparison.grid.seeds)
    how = f"{forms.describe_results(comparison)}. "
    if num_seeds > 1:
        how += forms.form_of(comparison).describe_means(num_seeds)
    else:
        how += f"One seed, {grid.seeds[0]}: no spread is known."
    parts = ["## Results", how, forms.result_table(comparison)]
    for metric in comparison.metrics:
        if without := comparison.classes_without(metric.key):
            parts.append(
                f"No {metric.title} for {', '.join(without)} "
                f"{comparison.kind.words.lacking}."
            )
    if hidden := set(comparison.shown) - set(comparison.metrics):
        titles = ", ".join(m.title for m in comparison.shown if m in hidden)
        parts.append(f"No run has given: {titles}.")
    if missing := comparison.missing:
        parts.append(
            f"Missing, {len(missing)} of {len(grid)} runs: "
            f"{'; '.join(map(str, missing))}."
        )
    return parts


def _published(comparison: Comparison) -> list[str]:
    table = forms.published_table(comparison)
    if table is None:
        return []
    what = forms.form_of(comparison).describe(f"without{tables.ARROW}with")
    return [
        "## Published figures",
        f"{what}, as the SSPCAB paper gives them for its own, full trainings. "
        f"Networks, epochs and {comparison.kind.words.samples} of the runs "
        "above are under Conditions.",
        table,
    ]


def _differences(comparison: Comparison) -> list[str]:
    reference, short = comparison.grid.reference, comparison.kind.words.short
    if len(comparison.grid.blocks) == 1:
        return []
    return [
        "## Paired differences",
        f"Percentage points, minus {reference!r}, over pairs of equal {short} "
        "and seed. The interval is the t interval of the mean. Detectable is "
        "the smallest true difference that a two-sided test at the "
        f"{100 * (1 - LEVEL):.0f} % level finds with a power of "
        f"{100 * POWER:.0f} %, given this many pairs of this spread: smaller "
        "ones may exist and not show. Both assume normal, independent "
        f"differences; pairs of one {short} are not independent. Fewer than "
        f"{MIN_PAIRS} pairs have neither.",
        tables.difference_table(comparison),
    ]


def _ensembles(comparison: Comparison) -> list[str]:
    if comparison.ensembles is None:
        return []
    title = f"## Ensembles of {len(comparison.grid.seeds)} seeds"
    ensembles = comparison.of_ensembles()
    if ensembles is None or not ensembles.metrics:
        return [title, "None has all its seeds yet."]
    parts = [
        title,
        f"{forms.describe_results(comparison)}. The calibrated scores of each "
        "image are averaged over the seeds.",
        forms.result_table(ensembles),
    ]
    table = forms.published_table(ensembles, ":ensemble")
    if table is not None:
        parts += ["The SSPCAB paper's ensembles of five:", table]
    return parts


def _write_csv(
    path: str,
    comparison: Comparison,
    axes: Sequence[str],
    costs: Sequence[str] = (),
) -> None:
    rows = [
        _row(cell, comparison)
        for cell in comparison.grid
        if cell in comparison.results
    ]
    results = comparison.results.values()
    metrics = dict.fromkeys(name for r in results for name in r.metrics)
    columns = [*axes, *metrics, *costs]
    files.write_csv(
        path,
        columns,
        [{name: row.get(name) for name in columns} for row in rows],
    )


def _class_column(comparison: Comparison) -> str:
    return comparison.kind.words.short.replace(" ", "_")


def _row(cell: Cell, comparison: Comparison) -> dict[str, Any]:
    result = comparison.results[cell]
    return {
        _class_column(comparison): cell.data_class,
        "model": cell.model,
        "block": cell.block,
        "seed": cell.seed,
        **result.metrics,
        "training_seconds": result.seconds(),
        "parameters": comparison.parameters[cell.model, cell.block],
    }
