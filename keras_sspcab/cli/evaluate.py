"""`keras-sspcab evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from keras_sspcab.cli._console import command, number, say, show, warn
from keras_sspcab.runs import RunFolder

if TYPE_CHECKING:
    from keras_sspcab.cli._evaluation import Evaluation

_COLUMNS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1": "best F1",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "aupro": "AUPRO",
    "detection_rate": "detected",
    "false_alarm_rate": "false alarms",
}


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command()(command(evaluate))


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Other images than those of the run."),
    ] = None,
    on_error: Annotated[
        str | None, typer.Option(help="Broken images: raise or skip.")
    ] = None,
) -> None:
    """Score the test images of a run: metrics, scores and anomaly maps.

    Metrics need defective images; scores are written without them as well.
    """
    from keras_sspcab.cli._evaluation import evaluate_run
    from keras_sspcab.cli.train import resolve

    folder = RunFolder(str(run))
    named = {
        "data.path": None if data is None else str(data),
        "data.on_error": on_error,
    }
    overrides = {k: v for k, v in named.items() if v is not None}
    folder.require("model.keras", "keras-sspcab train")
    config = resolve(
        Path(folder.require("config.toml", "keras-sspcab train")), overrides
    )
    show_evaluation(folder, evaluate_run(folder, config))


def show_evaluation(run: RunFolder, evaluation: "Evaluation") -> None:
    """Prints the metrics of a run as a table, and where they are."""
    metrics = evaluation.metrics
    if evaluation.split != "test":
        warn("There are no test images; the held-out normal images were scored")
    if not metrics["num_defective_images"]:
        warn(
            "Metrics need defective images, as in test/DEFECT. There are only "
            "normal ones: scores were written, and the false alarms counted"
        )
    elif not metrics["num_normal_images"]:
        warn(
            "Image metrics need normal images as well, as in test/good. There "
            "are only defective ones"
        )
    if evaluation.num_without_mask:
        warn(
            f"{evaluation.num_without_mask} defective images have no mask and "
            "count for no pixel metric"
        )
    columns = {
        name: title for name, title in _COLUMNS.items() if name in metrics
    }
    table = Table(title=f"{run.path}: {evaluation.split} images")
    table.add_column("defect")
    table.add_column("images", justify="right")
    for title in columns.values():
        table.add_column(title, justify="right")

    def add(name: str, count: int, values: dict[str, Any], end: bool) -> None:
        table.add_row(
            name,
            str(count),
            *(number(values.get(column)) for column in columns),
            end_section=end,
        )

    add("all", metrics["num_test_images"], metrics, True)
    for defect, values in metrics["per_defect"].items():
        add(defect, values["num_images"], values, False)
    show(table)
    say(f"Wrote {run.file('metrics.json')} and {run.file('predictions')}")
