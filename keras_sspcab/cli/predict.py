"""`keras-sspcab predict`."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import (
    Product,
    Sensitivity,
    Threshold,
    TrainedModel,
    number,
    say,
    show,
)


def predict(
    model: TrainedModel,
    images: Annotated[
        list[str] | None,
        typer.Argument(help="Image files, or folders of them; also URLs."),
    ] = None,
    video: Annotated[
        list[Path] | None,
        typer.Option(help="Video file or folder of frames. Repeatable."),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            help="Folder for annotated videos, plots and tables. "
            "Default: VIDEO-scores, in the working folder."
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            help="Videos: frames from one of a clip to the next. "
            "Default: as in training, or 1."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write a .csv or .json file.")
    ] = None,
    heat_maps: Annotated[
        Path | None,
        typer.Option(help="Folder for a PNG of each image, with its map."),
    ] = None,
    fail_on_anomaly: Annotated[
        bool,
        typer.Option(
            "--fail-on-anomaly",
            help="Exit code 1 if an image or a frame is anomalous.",
        ),
    ] = False,
    on_error: Annotated[
        str, typer.Option(help="Broken images: raise or skip.")
    ] = "raise",
    threshold: Threshold = None,
    sensitivity: Sensitivity = None,
    product: Product = None,
) -> None:
    """Score images or videos with a trained model.

    Of each --video an annotated video, a plot of the scores over time and a
    table are written.

    An image that the model gives no finite score has an error and no result.

    Exit codes: 0 done, 1 an anomaly was found (with --fail-on-anomaly), 2 an
    error, also of one image among others.
    """
    if out is not None and out.suffix not in (".csv", ".json"):
        raise ValueError(
            f"The file for --out must end in .csv or .json. Received: {out}"
        )
    import_backend()
    from keras_sspcab.cli._progress import ConsoleProgress
    from keras_sspcab.runs import RunFolder, load_detector
    from keras_sspcab.runs.prediction import (
        check_options,
        predict_images,
        predict_videos,
    )

    if out is not None:
        # Before all the work.
        out.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(out.parent, os.W_OK):
            raise ValueError(f"Nothing can be written to --out {out}")
    detector = load_detector(str(model))
    _check_kind(detector, images or [], video or [])
    check_options(
        detector,
        heat_maps=heat_maps,
        results=results,
        stride=stride,
        on_error=on_error,
        product=product,
    )
    detector.calibration = detector.calibration.adjusted(threshold, sensitivity)
    if video:
        is_run = model.suffix != ".keras"
        predictions = predict_videos(
            detector,
            video,
            results,
            stride,
            RunFolder(str(model)).config if is_run else None,
            ConsoleProgress(),
        )
        rows = [row for one in predictions for row in one.rows]
        written = [path for one in predictions for path in one.paths]
        _show_videos(predictions)
        _write(out, rows)
    else:
        rows = predict_images(
            detector,
            images or [],
            heat_maps,
            on_error,
            ConsoleProgress(),
            product,
        )
        written = [] if heat_maps is None else [str(heat_maps)]
        _show_images(rows)
        _write(out, rows)
    errors = [row for row in rows if row["error"] is not None]
    if not detector.calibration.is_calibrated:
        say("The model is not calibrated: nothing is flagged.")
    elif not video:
        count = sum(bool(row["is_anomalous"]) for row in rows)
        say(
            f"{count} of {len(rows)} anomalous, that is, "
            f"{detector.calibration.describe_rule()}, in standard deviations "
            "above normal."
        )
    for path in (*written, *([] if out is None else [out])):
        say(f"Wrote {path}")
    if errors:
        noun = "frames" if video else "images"
        raise ValueError(
            f"{len(errors)} of {len(rows)} {noun} have no result: "
            f"{errors[0]['error']}. Has the training diverged?"
        )
    if fail_on_anomaly and any(row["is_anomalous"] for row in rows):
        raise typer.Exit(1)


def _check_kind(detector: Any, images: list[str], videos: list[Path]) -> None:
    if bool(images) == bool(videos):
        raise ValueError(
            "Give images, or videos with --video. Received: "
            + ("both" if images else "neither")
        )
    if images and detector.kind != "image":
        raise ValueError(
            f"The model {detector.name!r} looks at videos. "
            f"Received: {images[0]}. Give --video {images[0]}"
        )
    if videos and detector.kind == "image":
        raise ValueError(
            f"The model {detector.name!r} looks at single images. "
            f"Received: --video {videos[0]}. Give images, or train a host of "
            "video"
        )


def _write(out: Path | None, rows: list[dict[str, Any]]) -> None:
    from keras_sspcab import files

    if out is None:
        return
    if out.suffix == ".csv":
        files.write_csv(str(out), list(rows[0]), rows)
    else:
        files.write_json(str(out), rows)


def _show_images(rows: list[dict[str, Any]]) -> None:
    has_products = "product" in rows[0] if rows else False
    table = Table(
        Column("image", overflow="fold"),
        Column("score", justify="right"),
        *(["product"] if has_products else []),
        "result",
    )
    for row in rows:
        result = "[green]normal[/green]"
        if row["is_anomalous"]:
            result = "[red]anomalous[/red]"
        if row["error"] is not None:
            result = f"[red]error:[/red] {row['error']}"
        elif row["conflict"] is not None:
            result = f"{result}, but {row['conflict']}"
        cells = [Text(row["product"])] if has_products else []
        score = number(row["anomaly_score"])
        table.add_row(Text(row["path"]), score, *cells, result)
    show(table)


def _show_videos(predictions: list[Any]) -> None:
    table = Table(
        "video",
        Column("frames", justify="right"),
        Column("anomalous", justify="right"),
        "longest stretches",
    )
    for one in predictions:
        stretches = sorted(one.alarms(), key=lambda pair: pair[0] - pair[1])
        times = [f"{_clock(a)} to {_clock(b)}" for a, b in stretches[:3]]
        table.add_row(
            Text(one.name),
            str(one.num_frames),
            str(sum(bool(row["is_anomalous"]) for row in one.rows)),
            ", ".join(times) or "-",
        )
    show(table)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:04.1f}"
