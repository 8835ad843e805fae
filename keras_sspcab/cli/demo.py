"""`keras-sspcab demo`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import number, say, show, warn

if TYPE_CHECKING:
    from keras_sspcab.runs import Run, RunFolder

_FORMATS = ("savedmodel", "tflite", "onnx")

# How `--fast` writes the texture.
_FAST = {
    "image_size": 64,
    "num_train": 24,
    "num_test_good": 8,
    "num_test_defective": 10,
}


def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Your own images instead of a texture."),
    ] = None,
    texture: Annotated[
        str | None,
        typer.Option(help="brick, grass or gravel. Default: brick."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run folder. Default: runs/demo-NAME.")
    ] = None,
    fast: Annotated[
        bool,
        typer.Option("--fast", help="Few images and epochs: a smoke test."),
    ] = False,
) -> None:
    """Train, evaluate, report and export, in a few minutes on a CPU.

    Without --data, images of a texture with drawn defects are written first.
    The same command continues where it was stopped.
    """
    from keras_sspcab.cli._progress import ConsoleProgress
    from keras_sspcab.cli.evaluate import show_metrics
    from keras_sspcab.runs import Run, RunFolder

    if data is not None and texture is not None:
        raise ValueError(
            "Images are your own or of a texture. Received: --data "
            f"{data} and --texture {texture}. Leave one out"
        )
    name = (texture or "brick") if data is None else data.resolve().name
    default = os.path.join("runs", f"demo-{name}{'-fast' if fast else ''}")
    folder = RunFolder(default if run is None else str(run))
    if not folder.exists:
        folder.check_free()
    import_backend()
    formats = _installed_formats()
    settings: dict[str, Any] = {"data.image_size": 64} if fast else {}
    if data is None:
        data = _write_texture(folder, name, _FAST if fast else {})
        settings["data.channels"] = 1
    settings["data.path"] = os.path.abspath(data)
    resume = folder.exists
    if resume:
        opened = Run(folder.path)
        _refuse_changes(opened, settings)
    else:
        opened = Run.create(folder.path, settings=settings)
    if opened.is_finished:
        say(f"{opened.path} has been trained already.")
    else:
        opened.train(resume, ConsoleProgress())
        say(f"Saved {folder.file('model.keras')}", style="green")
    show_metrics(folder, opened.evaluate(progress=ConsoleProgress()))
    say(f"Wrote {opened.report()}")
    _export(folder, formats)
    _show_summary(folder)


def _write_texture(run: "RunFolder", texture: str, options: Any) -> Path:
    """Writes the images beside the run, unless they are there."""
    from keras_sspcab.data.textures import texture_in, write_texture_folder

    path = Path(f"{run.path}-data")
    if not path.is_dir():
        say(f"Writing images of {texture} with drawn defects to {path}")
        write_texture_folder(path, texture=texture, **options)
    if (found := texture_in(path)) != texture:
        raise ValueError(
            f"{path} holds images of {found or 'something else'}. Received: "
            f"--texture {texture}. Choose another --run, or remove both folders"
        )
    return path


def _refuse_changes(run: "Run", settings: dict[str, Any]) -> None:
    from keras_sspcab.runs.parsing import differences, load_config

    if changed := differences(run.config, load_config(None, settings)):
        raise ValueError(
            f"{run.path} holds a run with other settings: "
            f"{', '.join(changed)}. Choose another --run, or remove it"
        )


def _installed_formats() -> list[str]:
    """Returns the formats that can be exported to; warns of the others."""
    from keras_sspcab.export.runs import require_packages

    formats = []
    for name in _FORMATS:
        try:
            require_packages(name)
        except ImportError as error:
            warn(f"There will be no export to {name}. {error}")
        else:
            formats.append(name)
    return formats


def _export(run: "RunFolder", formats: list[str]) -> None:
    """Exports to some formats; what was exported before is kept."""
    from keras_sspcab.cli.export import show_exports
    from keras_sspcab.export.runs import RunExporter

    exporter = RunExporter(run.path)
    exported = run.record.get("exported", {})
    results = {}
    for name in formats:
        if os.path.exists(exported.get(name, "")):
            say(f"{exported[name]} has been exported already.")
            continue
        results[name] = exporter.export(name)
        exported[name] = os.fspath(results[name].path)
        run.update_record(exported=exported)
    if results:
        show_exports(results)


def _show_summary(run: "RunFolder") -> None:
    from keras_sspcab.metrics.registry import metrics_of
    from keras_sspcab.runs.outputs import read_metrics

    metrics = read_metrics(run)
    table = Table(
        Column(no_wrap=True),
        Column(overflow="fold"),
        title="The demo is complete",
        show_header=False,
    )
    for metric in metrics_of("image", metrics):
        table.add_row(metric.title, number(metrics[metric.key]))
    table.add_section()
    table.add_row("images", run.config.data.path)
    table.add_row("model", run.file("model.keras"))
    table.add_row("report", run.file("report.html"))
    for name, path in run.record.get("exported", {}).items():
        table.add_row(name, path)
    show(table)
    say(f"Next: keras-sspcab predict {run.path} YOUR_IMAGES")
