"""`keras-sspcab evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from keras_sspcab.cli._console import command, number, say, show, warn
from keras_sspcab.runs import ConfigError, RunFolder
from keras_sspcab.runs.parsing import parse_setting

if TYPE_CHECKING:
    from keras_sspcab.cli._image_evaluation import Evaluation
    from keras_sspcab.cli._video_evaluation import VideoEvaluation

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
_VIDEO_METRICS = {
    "micro_auc": "micro AUC",
    "macro_auc": "macro AUC",
    "streaming_micro_auc": "streaming micro AUC",
    "rbdc": "RBDC",
    "tbdc": "TBDC",
    "detection_rate": "abnormal frames found",
    "false_alarm_rate": "false alarms",
}


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command()(command(evaluate))


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Other images or videos than those of the run."),
    ] = None,
    on_error: Annotated[
        str | None, typer.Option(help="Broken images or videos: raise or skip.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="evaluation.KEY=VALUE",
            help="How frame scores are measured, such as "
            "evaluation.smoothing=median. Repeatable.",
        ),
    ] = None,
) -> None:
    """Score the test data of a run: metrics, scores and anomaly maps.

    Metrics need defective images or abnormal frames; scores are written without
    them as well.
    """
    from keras_sspcab.cli._evaluation import evaluate_run
    from keras_sspcab.cli.train import resolve

    folder = RunFolder(str(run))
    named = {
        "data.path": None if data is None else str(data),
        "data.on_error": on_error,
    }
    overrides = {k: v for k, v in named.items() if v is not None}
    overrides |= dict(map(_parse_evaluation, settings or []))
    folder.require("model.keras", "keras-sspcab train")
    config = resolve(
        Path(folder.require("config.toml", "keras-sspcab train")), overrides
    )
    show_evaluation(folder, evaluate_run(folder, config))


def _parse_evaluation(text: str) -> tuple[str, Any]:
    key, value = parse_setting(text)
    if not key.startswith("evaluation."):
        raise ConfigError(
            "A trained run keeps its settings but for those of [evaluation]. "
            f"Received: --set {text}"
        )
    return key, value


def show_evaluation(
    run: RunFolder, evaluation: "Evaluation | VideoEvaluation"
) -> None:
    """Prints the metrics of a run as a table, and where they are."""
    if evaluation.metrics.get("kind") == "video":
        _show_videos(run, evaluation)
    else:
        _show_images(run, evaluation)
    say(f"Wrote {run.file('metrics.json')} and {run.file('predictions')}")


def _show_images(run: RunFolder, evaluation: Any) -> None:
    from keras_sspcab.metrics.shortcuts import describe_shortcut

    metrics = evaluation.metrics
    if evaluation.split != "test":
        scored = (
            "training" if evaluation.split == "train" else "held-out normal"
        )
        warn(f"There are no test images; the {scored} images were scored")
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
    if shortcut := describe_shortcut(metrics):
        warn(shortcut)
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


def _show_videos(run: RunFolder, evaluation: Any) -> None:
    metrics = evaluation.metrics
    if evaluation.split != "test":
        warn("There are no test videos; the held-out normal videos were scored")
    elif evaluation.unlabeled:
        warn(
            f"{len(evaluation.unlabeled)} test videos have no ground truth "
            "and count for no metric"
        )
    elif not metrics["num_abnormal_frames"]:
        warn("No test frame is abnormal: there is nothing to tell apart")
    table = Table(title=f"{run.path}: {evaluation.split} videos")
    for column in ("video", "frames", "abnormal", "AUC"):
        justify: Any = "left" if column == "video" else "right"
        table.add_column(column, justify=justify)
    for name, values in metrics["per_video"].items():
        table.add_row(
            Text(name),
            str(values["num_frames"]),
            str(values.get("num_abnormal_frames", "-")),
            number(values.get("auc")),
        )
    show(table)
    table = Table()
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, title in _VIDEO_METRICS.items():
        if name in metrics:
            table.add_row(title, number(metrics[name]))
    if table.row_count:
        show(table)
    for name, value in metrics["conventions"].items():
        say(f"{name.replace('_', ' ')}: {value}", style="dim")
