"""`keras-sspcab export`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import TrainedModel, number, show

if TYPE_CHECKING:
    from keras_sspcab.export import ExportResult

FORMATS = ("savedmodel", "tflite", "onnx", "openvino")
_FORMATS_WITH_PRECISION = ("tflite", "openvino")


def export(
    model: TrainedModel,
    to: Annotated[
        list[str],
        typer.Option(help=f"{', '.join(FORMATS)}. Repeatable."),
    ],
    precision: Annotated[
        str,
        typer.Option(
            help="float32; for tflite and openvino also float16 or int8."
        ),
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
    import_backend()
    from keras_sspcab.export.runs import RunExporter, require_packages

    require_packages(*to)
    exporter = RunExporter(model, images, out)
    detector = exporter.detector
    if networks and detector.kind != "objects":
        raise ValueError(
            f"--networks is for hosts that look at objects. {model} holds "
            f"{detector.name}"
        )
    formats = list(dict.fromkeys(to))
    results: dict[str, ExportResult] = {}
    try:
        for name in formats:
            results[name] = exporter.export(name, precision)
    finally:  # those before one that fails are there
        if results:
            show_exports(results)
    if networks:
        _show_networks(
            {
                name: exporter.export_networks(name, precision)
                for name in formats
            }
        )


def _check_formats(to: Sequence[str], precision: str) -> None:
    from keras_sspcab.checks import did_you_mean

    for name in to:
        if name not in FORMATS:
            raise ValueError(
                f"--to must be one of {', '.join(FORMATS)}. Received: {name}"
                f"{did_you_mean(name, FORMATS, '.')}"
            )
        if precision != "float32" and name not in _FORMATS_WITH_PRECISION:
            raise ValueError(
                f"The precision {precision!r} is for "
                f"{' and '.join(_FORMATS_WITH_PRECISION)} only. Received: "
                f"--to {name} --precision {precision}"
            )


def show_exports(results: "dict[str, ExportResult]") -> None:
    """Prints where artifacts are and how far they are from the model."""
    numbers = ("score", "pixel of map", "flags", "images")
    table = Table(
        "format",
        *(Column(title, justify="right") for title in numbers),
        Column("artifact", overflow="fold"),
        title="Largest differences between artifact and model",
        caption="in standard deviations of normal images",
    )
    for name, result in results.items():
        parity = result.parity
        if parity is None:
            continue
        table.add_row(
            name,
            number(parity.outputs["anomaly_score"].max_difference),
            number(parity.outputs["anomaly_map"].max_difference),
            str(parity.flags_differing),
            str(parity.num_images),
            os.fspath(result.path),
        )
    show(table)


def _show_networks(results: "dict[str, dict[str, ExportResult]]") -> None:
    table = Table(
        "format",
        "network",
        Column("relative", justify="right"),
        Column("artifact", overflow="fold"),
        title="Largest differences between artifact and network",
    )
    for name, exported in results.items():
        for network, result in exported.items():
            if result.parity is None:
                continue
            differences = result.parity.outputs.values()
            table.add_row(
                name,
                network,
                number(max(d.relative_difference for d in differences)),
                os.fspath(result.path),
            )
    table.caption = "as a share of the largest value"
    show(table)
