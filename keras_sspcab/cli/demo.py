"""`keras-sspcab demo`."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from keras_sspcab.cli._console import command, number, say, show, warn
from keras_sspcab.cli.export import FORMATS
from keras_sspcab.runs import Config, RunFolder
from keras_sspcab.runs.parsing import differences

# Arguments of `write_texture_folder`, and settings that apply to textures, and
# to all data.
DEMO: dict[str, dict[str, Any]] = {
    "texture": {},
    "texture_settings": {"data.channels": 1},
    "settings": {},
}
DEMO_FAST: dict[str, dict[str, Any]] = {
    "texture": {
        "image_size": 64,
        "num_train": 24,
        "num_test_good": 8,
        "num_test_defective": 10,
    },
    "texture_settings": {"data.channels": 1},
    "settings": {"data.image_size": 64},
}


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command()(command(demo))


def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Your own images instead of a texture."),
    ] = None,
    texture: Annotated[
        str, typer.Option(help="brick, grass or gravel.")
    ] = "brick",
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
    Interrupted, the same command goes on where it stopped.
    """
    name = texture if data is None else data.resolve().name
    default = os.path.join("runs", f"demo-{name}{'-fast' if fast else ''}")
    folder = RunFolder(default if run is None else str(run))
    if not folder.exists:
        folder.check_free()
    recipe = DEMO_FAST if fast else DEMO
    if data is None:
        data = _write_texture(folder, texture, recipe["texture"])
        overrides = recipe["settings"] | recipe["texture_settings"]
    else:
        overrides = recipe["settings"]
    from keras_sspcab.cli.train import resolve

    config = resolve(None, {**overrides, "data.path": str(data)})
    _train(folder, config)
    _evaluate_and_report(folder, config)
    _export(folder)
    _show_summary(folder)


def _write_texture(run: RunFolder, texture: str, options: Any) -> Path:
    """Writes the images beside the run, unless they are there."""
    path = Path(f"{run.path}-data")
    if not path.is_dir():
        from keras_sspcab.cli._backend import import_backend

        import_backend()
        from keras_sspcab.data import write_texture_folder

        say(f"Writing images of {texture} with drawn defects to {path}")
        write_texture_folder(path, texture=texture, **options)
    return path


def _train(run: RunFolder, config: Config) -> None:
    from keras_sspcab.cli._pipeline import train_run

    resume = run.exists
    if resume and (changed := differences(run.config, config)):
        raise ValueError(
            f"{run.path} holds a run with other settings: "
            f"{', '.join(changed)}. Choose another --run, or remove it"
        )
    if run.is_finished:
        say(f"{run.path} has been trained already.")
        return
    train_run(run, config, resume)


def _evaluate_and_report(run: RunFolder, config: Config) -> None:
    from keras_sspcab.cli._evaluation import evaluate_run
    from keras_sspcab.cli.evaluate import show_evaluation

    show_evaluation(run, evaluate_run(run, config))
    from keras_sspcab.report import write_report

    say(f"Wrote {write_report(run.path)}")


def _export(run: RunFolder) -> None:
    """Exports to all formats; what was exported before is kept."""
    from keras_sspcab.cli._model import load_detector
    from keras_sspcab.cli.export import export_to, find_inputs, show_exports

    detector = load_detector(run.path)
    checked, normal = find_inputs(detector, Path(run.path), None)
    exported = run.record.get("exported", {})
    results = {}
    for name in FORMATS:
        if os.path.exists(exported.get(name, "")):
            say(f"{exported[name]} has been exported already.")
            continue
        try:
            results[name] = export_to(
                detector, name, Path(run.file("export")), checked, normal
            )
        except ImportError as error:
            warn(f"No export to {name}. {error}")
            continue
        exported[name] = os.fspath(results[name].path)
        run.update_record(exported=exported)
    if results:
        show_exports(results)


def _show_summary(run: RunFolder) -> None:
    with open(run.file("metrics.json"), encoding="utf-8") as file:
        metrics = json.load(file)
    table = Table(title="The demo is complete", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, title in {
        "image_auroc": "image AUROC",
        "pixel_auroc": "pixel AUROC",
        "aupro": "AUPRO",
        "detection_rate": "defects detected",
        "false_alarm_rate": "false alarms",
    }.items():
        if name in metrics:
            table.add_row(title, number(metrics[name]))
    table.add_section()
    table.add_row("images", run.config.data.path)
    table.add_row("model", run.file("model.keras"))
    table.add_row("report", run.file("report.html"))
    for name, path in run.record.get("exported", {}).items():
        table.add_row(name, path)
    show(table)
    say(f"Next: keras-sspcab predict {run.path} YOUR_IMAGES")
