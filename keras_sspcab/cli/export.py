"""`keras-sspcab export`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from keras_sspcab.cli._console import command, number, show
from keras_sspcab.runs import Config, DataConfig, RunFolder

if TYPE_CHECKING:
    from keras_sspcab.applications import AnomalyModel
    from keras_sspcab.export import ExportResult

FORMATS = ("savedmodel", "tflite", "onnx")

# Images that every artifact is compared with the model on.
_CHECKED_IMAGES = 32
_CLIPS_IN_BATCH = 8


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command()(command(export))


def export(
    model: Annotated[
        Path, typer.Argument(help="Run folder, or a .keras file.")
    ],
    to: Annotated[
        list[str],
        typer.Option(help="savedmodel, tflite or onnx. Repeatable."),
    ],
    precision: Annotated[
        str, typer.Option(help="float32; for tflite also float16 or int8.")
    ] = "float32",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the files. Default: RUN/export."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of normal images or videos to compare on, and for "
            "int8 to measure ranges on. Default: those of the run."
        ),
    ] = None,
    networks: Annotated[
        bool,
        typer.Option(
            "--networks",
            help="Hosts of objects: also each of their networks alone.",
        ),
    ] = False,
) -> None:
    """Export a model, and compare each artifact with it on real images.

    An artifact that differs from the model is not written.
    """
    _check_formats(to, precision)
    from keras_sspcab.cli._model import load_detector

    detector = load_detector(str(model))
    if networks and detector.kind != "objects":
        raise ValueError(
            f"--networks is for hosts that look at objects. {model} holds "
            f"{detector.name}"
        )
    is_run = model.suffix != ".keras"
    folder = out or (model if is_run else model.parent) / "export"
    checked, normal = find_inputs(detector, model if is_run else None, images)
    results = {
        name: export_to(detector, name, folder, checked, normal, precision)
        for name in dict.fromkeys(to)
    }
    show_exports(results)
    if networks:
        _export_networks(detector, to, folder, checked, normal, precision)


def _check_formats(to: Sequence[str], precision: str) -> None:
    for name in to:
        if name not in FORMATS:
            raise ValueError(
                f"--to must be one of {', '.join(FORMATS)}. Received: {name}"
            )
        if precision != "float32" and name != "tflite":
            raise ValueError(
                f"The precision {precision!r} is for tflite only. Received: "
                f"--to {name} --precision {precision}"
            )


def find_inputs(
    detector: "AnomalyModel", run: Path | None, data: Path | None
) -> tuple[Any, Any]:
    """Returns batches to compare on, and normal ones to measure ranges on.

    Args:
        detector: The model.
        run: Run folder whose images or videos serve, or None.
        data: Folder of images or videos that take their place, or None.

    Raises:
        ValueError: If there are neither.
    """
    if run is None and data is None:
        raise ValueError(
            "Each artifact is compared with the model on real images, and a "
            ".keras file names none. Give a folder with --images"
        )
    run_folder = None if run is None else RunFolder(str(run))
    config = None if run_folder is None else run_folder.config
    if detector.kind == "video":
        return _find_clips(detector, config, data)
    if detector.kind == "objects":
        from keras_sspcab.cli._object_data import objects_to_compare

        return objects_to_compare(detector, config, run_folder, data)
    return _find_images(detector, config, data)


def _find_images(
    detector: "AnomalyModel", config: Config | None, images: Path | None
) -> tuple[Any, Any]:
    from keras_sspcab.cli._data import images_of
    from keras_sspcab.cli._sources import source_of
    from keras_sspcab.data import check_images, scan_image_folder

    height, width, channels = detector.input_shape[1:]
    data = DataConfig(
        image_size=(height, width), channels=channels, patch_size=0
    )
    if images is not None or config is None:
        normal = scan_image_folder(str(images), layout="plain").train
        checked = check_images(normal)[:_CHECKED_IMAGES]
    else:
        folder = source_of(config).split(config)
        candidates = folder.test or folder.validation or folder.train
        # Spread over all kinds of defects.
        step = max(1, len(candidates) // _CHECKED_IMAGES)
        chosen = candidates[::step][:_CHECKED_IMAGES]
        checked, normal = check_images(chosen, on_error="skip"), folder.train
    return images_of(checked, data), images_of(normal, data)


def _find_clips(
    detector: "AnomalyModel", config: Config | None, path: Path | None
) -> tuple[Any, Any]:
    from keras_sspcab.cli._video_data import VideoSource
    from keras_sspcab.data.video import (
        check_videos,
        clip_dataset,
        count_clips,
        scan_video_folder,
    )

    length, height, width, channels = detector.input_shape[1:]
    stride = 1 if config is None else config.data.stride
    if path is not None or config is None:
        folder = scan_video_folder(str(path), layout="plain")
    else:
        folder = VideoSource().scan(config)

    def clips(videos: Any, limit: int | None = None) -> Any:
        videos = check_videos(videos, on_error="skip")
        step = 1
        if limit is not None:
            step = max(1, count_clips(videos, length, stride) // limit)
        return clip_dataset(
            videos,
            length,
            (height, width),
            channels,
            stride=stride,
            step=step,
            batch_size=_CLIPS_IN_BATCH,
        )

    checked = clips(folder.test or folder.train, _CHECKED_IMAGES)
    return checked.take(_CHECKED_IMAGES // _CLIPS_IN_BATCH), clips(folder.train)


def export_to(
    detector: "AnomalyModel",
    name: str,
    folder: Path,
    checked: Any,
    normal: Any,
    precision: str = "float32",
) -> "ExportResult":
    """Exports a model to one format.

    Args:
        detector: The model.
        name: One of `FORMATS`.
        folder: Where the folder of the format is made.
        checked: Batches of images or clips to compare on.
        normal: Batches to measure ranges on, for `"int8"`.
        precision: `"float32"`, or another one for TFLite.

    Returns:
        The path of the artifact, and the comparison.
    """
    from keras_sspcab.export import export_model

    target = folder / name / detector.name
    if name != "savedmodel":
        suffix = "" if precision == "float32" else f"-{precision}"
        target = target.with_name(f"{target.name}{suffix}.{name}")
    options: dict[str, Any] = {"images": checked}
    if name == "tflite":
        options["precision"] = precision
    if precision == "int8":
        options["representative_data"] = normal
    return export_model(detector, target, to=name, **options)


def _export_networks(
    detector: Any,
    to: Sequence[str],
    folder: Path,
    checked: Any,
    normal: Any,
    precision: str,
) -> None:
    """Exports each network of a host to the formats, and prints them."""
    from keras_sspcab.export import export_networks

    table = Table(title="Largest differences between artifact and network")
    for column in ("format", "network"):
        table.add_column(column)
    table.add_column("relative", justify="right")
    table.add_column("artifact", overflow="fold")
    for name in dict.fromkeys(to):
        options: dict[str, Any] = {}
        if name == "tflite":
            options["precision"] = precision
        if precision == "int8":
            options["representative_data"] = normal
        exported = export_networks(
            detector,
            folder / f"{name}-networks",
            name,
            images=checked,
            **options,
        )
        for network, result in exported.items():
            if result.parity is None:
                raise ValueError(f"The network {network} has not been compared")
            differences = result.parity.outputs.values()
            table.add_row(
                name,
                network,
                number(max(d.relative_difference for d in differences)),
                os.fspath(result.path),
            )
    table.caption = "as a share of the largest value"
    show(table)


def show_exports(results: "dict[str, ExportResult]") -> None:
    """Prints where artifacts are and how far they are from the model."""
    table = Table(title="Largest differences between artifact and model")
    table.add_column("format")
    table.add_column("score", justify="right")
    table.add_column("pixel of map", justify="right")
    table.add_column("flags", justify="right")
    table.add_column("images", justify="right")
    table.add_column("artifact", overflow="fold")
    for name, result in results.items():
        parity = result.parity
        if parity is None:
            raise ValueError(f"The export to {name} has not been compared")
        table.add_row(
            name,
            *(
                number(parity.outputs[output].max_difference)
                for output in ("anomaly_score", "anomaly_map")
            ),
            str(parity.flags_differing),
            str(parity.num_images),
            os.fspath(result.path),
        )
    table.caption = "in standard deviations of normal images"
    show(table)
