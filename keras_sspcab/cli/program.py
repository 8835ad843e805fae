"""The program: all commands. Nothing heavy is imported before one needs it."""

from typing import Annotated

import typer

from keras_sspcab.cli import calibrate as _calibrate
from keras_sspcab.cli import compare as _compare
from keras_sspcab.cli import demo as _demo
from keras_sspcab.cli import evaluate as _evaluate
from keras_sspcab.cli import export as _export
from keras_sspcab.cli import import_weights as _import_weights
from keras_sspcab.cli import models as _models
from keras_sspcab.cli import package as _package
from keras_sspcab.cli import predict as _predict
from keras_sspcab.cli import report as _report
from keras_sspcab.cli import score as _score
from keras_sspcab.cli import serve as _serve
from keras_sspcab.cli import settings as _settings
from keras_sspcab.cli import train as _train
from keras_sspcab.cli._console import options

app = typer.Typer(
    name="keras-sspcab",
    help=(
        "Anomaly detection with SSPCAB: learn what normal images or videos "
        "look like, and find what is not. Begin with `keras-sspcab demo`."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _module in (
    _models,
    _settings,
    _train,
    _import_weights,
    _evaluate,
    _calibrate,
    _predict,
    _score,
    _export,
    _package,
    _serve,
    _report,
    _compare,
    _demo,
):
    _module.register(app)


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"keras-sspcab {version('keras-sspcab')}")
        raise typer.Exit()


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show the traceback of errors."),
    ] = False,
) -> None:
    options.debug = debug
