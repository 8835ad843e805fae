"""The files of a comparison: two tables, a page of them, and a figure."""

import html
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from markdown_it import MarkdownIt

from keras_sspcab import files
from keras_sspcab.compare import tables
from keras_sspcab.compare.figure import write_figure
from keras_sspcab.compare.grid import OFF, ON
from keras_sspcab.compare.results import Comparison
from keras_sspcab.compare.statistics import LEVEL, MIN_PAIRS, POWER
from keras_sspcab.metrics.diagnosis import describe_shortcut
from keras_sspcab.pages import design
from keras_sspcab.report import figures

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{style}
main > * {{ margin-top: 1rem; }}
main > h2 {{ margin: 2.5rem 0 0; }}
main > h2:first-child {{ margin-top: 1rem; }}
main > p, main > ul {{ max-width: 56rem; overflow-wrap: anywhere; }}
td, th {{ white-space: nowrap; }}
.chart {{ max-width: {width}rem; min-width: 30rem; }}
</style>
</head>
<body>
<header>
<p class="eyebrow">Comparison</p>
<h1>{title}</h1>
</header>
<main>
{body}
</main>
<footer>Written by keras-sspcab</footer>
</body>
</html>
"""


def write_files(
    root: str, comparison: Comparison, conditions: Sequence[str]
) -> list[str]:
    """Writes `comparison.csv`, `.md`, `.html`, `.png`, `.svg`, each at once."""
    os.makedirs(root, exist_ok=True)
    paths = [os.path.join(root, "comparison.csv")]
    _write_csv(paths[0], comparison)
    ensembles = comparison.of_ensembles()
    path = os.path.join(root, "comparison-ensembles.csv")
    if ensembles is not None:
        paths.append(path)
        _write_csv(path, ensembles, is_of_seeds=False)
    else:
        # One of before would be about other seeds.
        Path(path).unlink(missing_ok=True)
    text = page(comparison, conditions)
    paths.append(os.path.join(root, "comparison.md"))
    files.write_text(paths[-1], text)
    picture = ""
    if comparison.results and comparison.metrics:
        pictures = [
            os.path.join(root, f"comparison.{suffix}")
            for suffix in ("png", "svg")
        ]
        write_figure(comparison, pictures)
        paths += pictures
        picture = Path(pictures[1]).read_text("utf-8")
    paths.append(os.path.join(root, "comparison.html"))
    files.write_text(paths[-1], html_page(text, picture))
    return paths


def html_page(text: str, picture: str) -> str:
    """Returns a page of Markdown as one file, with a picture of the results.

    Args:
        text: Markdown, whose first line is the title.
        picture: SVG of `write_figure`; "" if there is none.
    """
    first, _, rest = text.partition("\n")
    title = html.escape(first.removeprefix("# "))
    body = MarkdownIt().enable("table").render(rest)
    numbers = itertools.count(1)
    # Wide tables scroll by themselves, with the keys of the cursor, too.
    body = re.sub(
        "<table>",
        lambda _: (
            '<div class="scroll" tabindex="0" role="region" '
            f'aria-label="Table {next(numbers)}"><table>'
        ),
        body,
    ).replace("</table>", "</table></div>")
    width = 0.0
    if picture:
        (points,) = re.findall(r'<svg[^>]* width="([\d.]+)pt"', picture)
        width = float(points) * 1.4 / 12
        before, results, *after = body.split("<h2>", 2)
        chart = (
            '<div class="scroll" tabindex="0" role="region" '
            'aria-label="Figure"><figure class="chart"><div role="img" '
            'aria-label="Every training, as a dot; their means are in Table 1">'
            f"{figures.for_page(picture, 'comparison')}"
            "</div></figure></div>"
        )
        body = "<h2>".join([before, f"{results}{chart}\n", *after])
    return _PAGE.format(
        title=title, body=body.strip(), style=design(), width=round(width)
    )


def page(comparison: Comparison, conditions: Sequence[str]) -> str:
    """Returns `comparison.md`."""
    grid = comparison.grid
    parts = [
        f"# {', '.join(grid.models)}: {_title_of(comparison)}",
        *_results(comparison),
        *_published(comparison),
        *_differences(comparison),
        *_ensembles(comparison),
        "## Conditions",
        "\n".join(f"- {line}" for line in conditions),
    ]
    return "\n\n".join(parts) + "\n"


def _title_of(comparison: Comparison) -> str:
    blocks = comparison.grid.blocks
    if comparison.is_crowded:
        return f"{len(blocks)} settings of the block"
    return f"{tables.blocks_in_words(blocks)} SSPCAB"


def _results(comparison: Comparison) -> list[str]:
    grid, kind = comparison.grid, comparison.kind
    how = f"{tables.describe_numbers(comparison.rows, grid.blocks)}. "
    if len(grid.seeds) == 1:
        how += f"One seed, {grid.seeds[0]}: no spread is known."
    else:
        how += f"Mean ± sample standard deviation over {len(grid.seeds)} seeds."
        if comparison.rows == "classes":
            how += (
                " The means of several classes are taken for each seed first; "
                "seeds that lack a class do not count."
            )
    parts = ["## Results", how, tables.result_table(comparison)]
    for metric in comparison.metrics:
        if without := comparison.classes_without(metric.key):
            parts.append(
                f"No {metric.title} for {', '.join(without)} "
                f"{kind.nouns.lacking}."
            )
    if hidden := [m for m in comparison.shown if m not in comparison.metrics]:
        titles = ", ".join(metric.title for metric in hidden)
        parts.append(f"No run has given: {titles}.")
    if missing := comparison.missing:
        parts.append(
            f"Missing, {len(missing)} of {len(grid)} runs: "
            f"{'; '.join(map(str, missing))}."
        )
    return parts + _shortcuts(comparison)


def _shortcuts(comparison: Comparison) -> list[str]:
    """Returns the warnings about test sets that need no detector."""
    warnings: dict[str, str] = {}
    for cell, result in comparison.results.items():
        if text := describe_shortcut(result.metrics):
            warnings.setdefault(cell.data_class, text)
    return [f"**{name}**: {text}" for name, text in warnings.items()]


def _published(comparison: Comparison) -> list[str]:
    table = tables.published_table(comparison)
    if table is None:
        return []
    return [
        "## Published results",
        f"{tables.describe_numbers(comparison.rows, (OFF, ON))}, as the SSPCAB "
        "paper gives them for its own, full trainings. Networks, epochs and "
        f"{comparison.kind.nouns.samples} of the runs above are under "
        "Conditions.",
        table,
    ]


def _differences(comparison: Comparison) -> list[str]:
    if len(comparison.grid.blocks) == 1:
        return []
    nouns = comparison.kind.nouns
    data_class, data_classes = nouns.data_class, nouns.data_classes
    count = sum(
        found is not None and found.interval is not None
        for by_block in tables.differences(comparison).values()
        for found in by_block.values()
    )
    by_chance = (
        f" Of {count} intervals, about {count * (1 - LEVEL):.2g} leave out "
        "zero by chance alone."
        if count > 1
        else ""
    )
    return [
        "## Paired differences",
        f"Percentage points, minus {comparison.grid.reference!r}, over pairs "
        f"of equal {data_class} and seed. The interval is the t interval of "
        f"the mean over seeds, of which each is the mean over its pairs; with "
        f"fewer than {MIN_PAIRS} complete seeds, over {data_classes}, which "
        "takes the seeds as given: what others would change is not in it. "
        "Detectable is the smallest true difference that a two-sided "
        f"test at the {100 * (1 - LEVEL):.0f} % level finds with a power of "
        f"{100 * POWER:.0f} %, given this many differences of this spread: "
        "smaller ones may exist and not show. Both assume differences that "
        "are independent and nearly normal; with fewer than "
        f"{MIN_PAIRS} there is neither.{by_chance}",
        tables.difference_table(comparison),
    ]


def _ensembles(comparison: Comparison) -> list[str]:
    if comparison.ensembles is None:
        return []
    grid = comparison.grid
    title = f"## Ensembles of {len(grid.seeds)} seeds"
    ensembles = comparison.of_ensembles()
    if ensembles is None or not ensembles.metrics:
        return [title, "None has all its seeds yet."]
    parts = [
        title,
        f"{tables.describe_numbers(comparison.rows, grid.blocks)}. The "
        "calibrated scores of each image are averaged over the seeds.",
        tables.result_table(ensembles),
    ]
    table = tables.published_table(ensembles, ":ensemble")
    if table is not None:
        parts += ["The SSPCAB paper's ensembles of five:", table]
    return parts


def _write_csv(
    path: str, comparison: Comparison, is_of_seeds: bool = True
) -> None:
    """Writes a row for each finished cell: what it is, metrics and costs."""
    results = comparison.results
    data_class = comparison.kind.nouns.data_class.replace(" ", "_")
    columns = [data_class, "model", "block"]
    metrics = [name for result in results.values() for name in result.metrics]
    costs = ["training_seconds", "parameters"]
    if is_of_seeds:
        columns += ["seed", *dict.fromkeys(metrics), *costs]
    else:
        columns += dict.fromkeys(metrics)
    rows = []
    for cell in comparison.grid:
        if cell in results:
            row = {
                data_class: cell.data_class,
                "model": cell.model,
                "block": cell.block,
                "seed": cell.seed,
                **results[cell].metrics,
                "training_seconds": results[cell].seconds(),
                "parameters": comparison.parameters[cell.model, cell.block],
            }
            rows.append({name: row.get(name) for name in columns})
    files.write_csv(path, columns, rows)
