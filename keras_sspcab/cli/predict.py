"""`keras-sspcab predict`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from keras_sspcab.cli._console import command, number, say, show
from keras_sspcab.runs import DataConfig, RunFolder, files

if TYPE_CHECKING:
    from keras_sspcab.data import ImageSample

_COLUMNS = ("path", "anomaly_score", "is_anomalous", "raw_score")


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command()(command(predict))


def predict(
    model: Annotated[
        Path, typer.Argument(help="Run folder, or a .keras file.")
    ],
    images: Annotated[
        list[Path] | None,
        typer.Argument(help="Image files, or folders of them."),
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
) -> None:
    """Score images or videos with a trained model.

    Of each --video an annotated video, a plot of the scores over time and a
    table are written.

    Exit codes: 0 done, 1 an anomaly was found (with --fail-on-anomaly), 2 an
    error.
    """
    if out is not None and out.suffix not in (".csv", ".json"):
        raise ValueError(
            f"The file for --out must end in .csv or .json. Received: {out}"
        )
    from keras_sspcab.cli._model import load_detector

    detector = load_detector(str(model))
    _check_kind(detector, images or [], video or [])
    if video:
        found = _predict_videos(detector, model, video, results, stride, out)
        if fail_on_anomaly and found:
            raise typer.Exit(1)
        return
    from keras_sspcab.data import check_images

    samples = check_images(_find(images or []), on_error=on_error)
    if heat_maps is not None:
        heat_maps.mkdir(parents=True, exist_ok=True)
    rows = _score(detector, samples, heat_maps)
    if out is not None:
        _write(out, list(rows[0]), rows)
    _show(rows, detector.calibration.threshold)
    for written in (out, heat_maps):
        if written is not None:
            say(f"Wrote {written}")
    if fail_on_anomaly and any(row["is_anomalous"] for row in rows):
        raise typer.Exit(1)


def _check_kind(detector: Any, images: list[Path], videos: list[Path]) -> None:
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


def _predict_videos(
    detector: Any,
    model: Path,
    paths: list[Path],
    results: Path | None,
    stride: int | None,
    out: Path | None,
) -> bool:
    """Scores videos one after the other; returns whether a frame is flagged."""
    from keras_sspcab.cli._video_prediction import COLUMNS, predict_video
    from keras_sspcab.data.video import make_video

    is_run = model.suffix != ".keras"
    config = RunFolder(str(model)).config if is_run else None
    if stride is None:
        stride = 1 if config is None else config.data.stride
    videos = [make_video(path) for path in paths]
    names = [video.name for video in videos]
    if len(set(names)) < len(names):
        raise ValueError(
            "The results are named after the videos, which must differ. "
            f"Received: {', '.join(sorted(names))}"
        )
    table = Table()
    table.add_column("video")
    table.add_column("frames", justify="right")
    table.add_column("anomalous", justify="right")
    table.add_column("longest stretches")
    rows: list[dict[str, Any]] = []
    written: list[str] = []
    for video in videos:
        folder = f"{video.name}-scores" if results is None else str(results)
        result = predict_video(detector, video, folder, stride, config)
        rows += [{"video": video.name, **row} for row in result.rows]
        written += result.paths
        stretches = sorted(result.alarms(), key=lambda a: a[0] - a[1])[:3]
        table.add_row(
            Text(video.name),
            str(result.num_frames),
            str(sum(row["is_anomalous"] for row in result.rows)),
            ", ".join(f"{_clock(a)} to {_clock(b)}" for a, b in stretches)
            or "-",
        )
    if out is not None:
        _write(out, ["video", *COLUMNS], rows)
        written.append(str(out))
    show(table)
    if detector.calibration.threshold is None:
        say("The model is not calibrated: nothing is flagged.")
    for path in written:
        say(f"Wrote {path}")
    return any(row["is_anomalous"] for row in rows)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:04.1f}"


def _write(out: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".csv":
        files.write_csv(str(out), columns, rows)
    else:
        files.write_json(str(out), rows)


def _find(paths: list[Path]) -> "list[ImageSample]":
    from keras_sspcab.data import ImageSample, scan_image_folder

    found: dict[str, ImageSample] = {}
    for path in paths:
        if path.is_dir():
            samples = scan_image_folder(str(path), layout="plain").train
        else:
            # A file that does not exist is reported with the broken ones.
            samples = (ImageSample(str(path)),)
        found |= {sample.path: sample for sample in samples}
    return list(found.values())


def _score(
    detector: Any, samples: "tuple[ImageSample, ...]", heat_maps: Path | None
) -> list[dict[str, Any]]:
    from keras_sspcab.cli._data import images_of

    height, width, channels = detector.input_shape[1:]
    if height is None or width is None:
        raise ValueError(
            "The model takes images of any size, so it does not say which one "
            "they shall have. Use a model that `keras-sspcab train` has "
            "written, or predict from Python"
        )
    data = DataConfig(
        image_size=(height, width), channels=channels, patch_size=0
    )
    rows: list[dict[str, Any]] = []
    for images in images_of(samples, data):
        outputs = detector.predict_on_batch(images)
        for i in range(len(images)):
            path = samples[len(rows)].path
            row = {
                "path": path,
                "anomaly_score": float(outputs["anomaly_score"][i]),
                "is_anomalous": bool(outputs["is_anomalous"][i]),
                "raw_score": float(outputs["raw_score"][i]),
            }
            if heat_maps is not None:
                from keras_sspcab.cli._heat_maps import write_heat_map

                stem = os.path.splitext(os.path.basename(path))[0]
                name = f"{len(rows):06d}-{stem}.png"
                write_heat_map(
                    str(heat_maps / name),
                    path,
                    outputs["anomaly_map"][i],
                    detector.calibration,
                )
                row["heat_map"] = str(heat_maps / name)
            rows.append(row)
    return rows


def _show(rows: list[dict[str, Any]], threshold: float | None) -> None:
    table = Table()
    table.add_column("image", overflow="fold")
    table.add_column("score", justify="right")
    table.add_column("result")
    for row in rows:
        table.add_row(
            Text(row["path"]),
            number(row["anomaly_score"]),
            "[red]anomalous[/red]"
            if row["is_anomalous"]
            else "[green]normal[/green]",
        )
    show(table)
    count = sum(row["is_anomalous"] for row in rows)
    say(
        f"{count} of {len(rows)} anomalous, that is, with a score of at least "
        f"{number(threshold)} standard deviations above normal."
        if threshold is not None
        else "The model is not calibrated: nothing is flagged."
    )
