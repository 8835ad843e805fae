"""The program: all commands. Nothing heavy is imported before one needs it."""

from typing import Annotated

import typer

from keras_sspcab.cli._console import command, options
from keras_sspcab.cli.compare import compare
from keras_sspcab.cli.demo import demo
from keras_sspcab.cli.download import download
from keras_sspcab.cli.evaluate import evaluate, report
from keras_sspcab.cli.export import export
from keras_sspcab.cli.mark import mark
from keras_sspcab.cli.models import models, settings
from keras_sspcab.cli.package import PackageCommand, package
from keras_sspcab.cli.predict import predict
from keras_sspcab.cli.reproduce import reproduce
from keras_sspcab.cli.score import score
from keras_sspcab.cli.serve import serve
from keras_sspcab.cli.train import calibrate, import_weights, train
from keras_sspcab.cli.watch import WatchCommand, watch

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
_CLASSES = {package: PackageCommand, watch: WatchCommand}
for _function in (
    *(models, settings, download, train, import_weights, evaluate, calibrate),
    *(predict, score, watch, export, package, serve, mark, report, compare),
    *(reproduce, demo),
):
    app.command(cls=_CLASSES.get(_function))(command(_function))


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
