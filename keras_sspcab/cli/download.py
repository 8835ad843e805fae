"""`keras-sspcab download`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import say


def download(
    name: Annotated[
        str, typer.Argument(help="mvtec-ad, visa, ucsd-ped or avenue.")
    ],
    category: Annotated[
        str | None,
        typer.Option(
            help="Unpack this object alone, such as screw or candle; of "
            "ucsd-ped: UCSDped1 or UCSDped2. Default: all."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the data set. Default: its name."),
    ] = None,
    accept_license: Annotated[
        bool,
        typer.Option(
            "--accept-license", help="Accept the license without being asked."
        ),
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            help="A mirror: address of the archive; of avenue, which has two, "
            "of the folder they are in."
        ),
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option(help="Checksum of the archive, if it is another one."),
    ] = None,
    keep_archives: Annotated[
        bool,
        typer.Option(
            "--keep-archives",
            help="Keep them, to unpack other categories later.",
        ),
    ] = False,
) -> None:
    """Fetch a public data set, laid out so that --data takes it as it is.

    Its license is shown first. The same command continues a download that was
    stopped.
    """
    import_backend()
    from keras_sspcab import data
    from keras_sspcab.cli._progress import ConsoleProgress
    from keras_sspcab.data.downloading import find_download

    found = find_download(name)
    found.folders(category)  # Before anything is asked.
    if not accept_license and sys.stdin.isatty():
        say(found.describe_license())
        accept_license = typer.confirm("Do you accept it?")
        if not accept_license:
            raise typer.Exit(1)
    elif accept_license:
        say(found.describe_license(), style="dim")
    folder = data.download(
        name,
        out,
        category=category,
        accept_license=accept_license,
        url=url,
        sha256=sha256,
        keep_archives=keep_archives,
        progress=ConsoleProgress(),
    )
    example = folder
    if found.has_categories and category is None:
        example = folder / found.folders(None)[0]
    model = f" --model {found.model}" if found.model else ""
    say(f"It is in {folder}", style="green")
    given = shlex.quote(str(example))
    say(f"Train with: keras-sspcab train --data {given}{model}")
