"""`keras-sspcab evaluate` and `report`."""

import webbrowser
from collections import ChainMap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import (
    FinishedRun,
    OnError,
    number,
    say,
    show,
    warn,
)

if TYPE_CHECKING:
    from keras_sspcab.runs import RunFolder


def evaluate(
    run: FinishedRun,
    data: Annotated[
        str | None,
        typer.Option(
            help="Other images or videos than those of the run. A folder with "
            "`test` alone is enough."
        ),
    ] = None,
    on_error: OnError = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="evaluation.KEY=VALUE",
            help="How frame scores are measured, such as "
            "evaluation.smoothing=median. Repeatable.",
        ),
    ] = None,
    as_published: Annotated[
        bool,
        typer.Option(
            "--as-published",
            help="Measure as the published figures of the model were.",
        ),
    ] = False,
) -> None:
    """Score the test data of a run: metrics, scores and anomaly maps.

    Metrics need defective images or abnormal frames; scores are written without
    them as well.
    """
    import_backend()
    from keras_sspcab.cli._progress import ConsoleProgress
    from keras_sspcab.runs import Run
    from keras_sspcab.runs.parsing import parse_setting

    opened = Run(run)
    metrics = opened.evaluate(
        data,
        on_error,
        dict(map(parse_setting, settings or [])),
        ConsoleProgress(),
        as_published,
    )
    show_metrics(opened, metrics)


def show_metrics(run: "RunFolder", metrics: dict[str, Any]) -> None:
    """Prints the metrics of a run as a table, and where they are."""
    from keras_sspcab.metrics.diagnosis import describe_failures
    from keras_sspcab.runs.folder import evaluated_elsewhere
    from keras_sspcab.scoring import Calibration

    split = run.record["evaluated"]["split"]
    elsewhere = evaluated_elsewhere(run.record)
    of_others = f" of {elsewhere}" if elsewhere else ""
    if metrics.get("kind") == "video":
        _show_videos(f"{run.path}: {split} videos{of_others}", metrics)
    else:
        _show_images(f"{run.path}: {split} images{of_others}", metrics)
    if text := metrics.get("as_published"):
        say(f"As published: {text}.")
    things = "frames" if metrics.get("kind") == "video" else "images"
    calibration = Calibration.from_dict(metrics["calibration"])
    if text := calibration.describe_false_alarms(things):
        say(f"{text}.", style="dim")
    for text in describe_failures(metrics):
        warn(text)
    folder = "predictions" if "per_product" not in metrics else "products"
    say(f"Wrote {run.file('metrics.json')} and {run.file(folder)}")


def _show_images(title: str, metrics: dict[str, Any]) -> None:
    from keras_sspcab.metrics.registry import metrics_of

    parts = metrics.get("per_product")
    # Products without defects have fewer.
    found = metrics if parts is None else ChainMap(*parts.values())
    columns = metrics_of("image", found)
    numbers = ("images", *(metric.title for metric in columns))
    table = Table(
        "defect" if parts is None else "product",
        *(Column(name, justify="right") for name in numbers),
        title=title,
    )

    def add(name: str, count: int, values: dict[str, Any]) -> None:
        cells = [number(values.get(metric.key)) for metric in columns]
        table.add_row(name, str(count), *cells)

    if parts is None:
        add("all", metrics["num_test_images"], metrics)
        table.add_section()
        for defect, values in metrics["per_defect"].items():
            add(defect, values["num_images"], values)
    else:
        for product, values in parts.items():
            add(product, values["num_test_images"], values)
        table.add_section()
        add("mean", metrics["num_test_images"], metrics)
    show(table)


def _show_videos(title: str, metrics: dict[str, Any]) -> None:
    from keras_sspcab.metrics.registry import metrics_of

    numbers = ("frames", "abnormal", "AUC")
    table = Table(
        "video",
        *(Column(name, justify="right") for name in numbers),
        title=title,
    )
    for name, values in metrics["per_video"].items():
        table.add_row(
            Text(name),
            str(values["num_frames"]),
            str(values.get("num_abnormal_frames", "-")),
            number(values.get("auc")),
        )
    show(table)
    table = Table("metric", Column("value", justify="right"))
    for metric in metrics_of("video", metrics):
        table.add_row(metric.title, number(metrics[metric.key]))
    if table.row_count:
        show(table)
    for name, value in metrics["conventions"].items():
        say(f"{name.replace('_', ' ')}: {value}", style="dim")


def report(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run that was evaluated.")
    ],
    max_images: Annotated[
        int,
        typer.Option(
            min=0,
            help="How many pictures it shows; more than 300 are written into "
            "a folder beside it.",
        ),
    ] = 60,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open it in the browser.")
    ] = False,
) -> None:
    """Write report.html: curves, metrics, and pictures of the anomalies."""
    from keras_sspcab.report import write_report

    path = write_report(run, max_images=max_images)
    say(f"Wrote {path}", style="green")
    if open_browser:
        webbrowser.open(path.resolve().as_uri())
