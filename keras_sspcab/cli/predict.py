"""`keras-sspcab predict`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from keras_sspcab.cli._console import command, number, say, show
from keras_sspcab.runs import DataConfig, files

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
        list[Path], typer.Argument(help="Image files, or folders of them.")
    ],
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
            "--fail-on-anomaly", help="Exit code 1 if an image is anomalous."
        ),
    ] = False,
    on_error: Annotated[
        str, typer.Option(help="Broken images: raise or skip.")
    ] = "raise",
) -> None:
    """Score images with a trained model.

    Exit codes: 0 done, 1 an anomaly was found (with --fail-on-anomaly), 2 an
    error.
    """
    if out is not None and out.suffix not in (".csv", ".json"):
        raise ValueError(
            f"The file for --out must end in .csv or .json. Received: {out}"
        )
    from keras_sspcab.cli._model import load_detector

    detector = load_detector(str(model))
    from keras_sspcab.data import check_images

    samples = check_images(_find(images), on_error=on_error)
    if heat_maps is not None:
        heat_maps.mkdir(parents=True, exist_ok=True)
    rows = _score(detector, samples, heat_maps)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".csv":
            columns = list(rows[0])
            files.write_csv(str(out), columns, rows)
        else:
            files.write_json(str(out), rows)
    _show(rows, detector.calibration.threshold)
    for written in (out, heat_maps):
        if written is not None:
            say(f"Wrote {written}")
    if fail_on_anomaly and any(row["is_anomalous"] for row in rows):
        raise typer.Exit(1)


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
