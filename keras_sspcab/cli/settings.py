"""`keras-sspcab settings`."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import command, say, show


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command()(command(settings))


def settings(
    model: Annotated[
        str | None,
        typer.Argument(help="Model whose defaults are shown.", metavar="MODEL"),
    ] = None,
) -> None:
    """List what --set can change: keys, defaults of a model, and meanings."""
    import_backend()
    from keras_sspcab.runs import ModelConfig, list_settings

    listed = list_settings(model)
    table = Table(title=f"Settings of {model or ModelConfig().name}")
    table.add_column("key", no_wrap=True)
    for column in ("default", "values", "meaning"):
        table.add_column(column, overflow="fold")
    section = listed[0].key.partition(".")[0]
    for setting in listed:
        name = setting.key.partition(".")[0]
        if name != section:
            table.add_section()
        section = name
        cells = (setting.key, str(setting.default), setting.values)
        table.add_row(*map(Text, (*cells, setting.meaning)))
    show(table)
    say(
        "As an option: --set training.epochs=5. In a file for --config: "
        "[training] and, below it, epochs = 5"
    )
