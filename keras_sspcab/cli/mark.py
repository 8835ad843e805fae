"""`keras-sspcab mark`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_sspcab.cli._console import say


def mark(
    feedback: Annotated[
        Path, typer.Argument(help="Folder of marked images; made if missing.")
    ],
    images: Annotated[
        list[Path] | None,
        typer.Argument(help="Images whose answer was wrong."),
    ] = None,
    false_alarm: Annotated[
        bool,
        typer.Option("--false-alarm", help="They are normal, but flagged."),
    ] = False,
    missed: Annotated[
        bool,
        typer.Option("--missed", help="They are defective, but not flagged."),
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Take their marks back.")
    ] = False,
) -> None:
    """Keep images whose answer was wrong, to learn from them.

    Copies of the images are kept in the folder. `calibrate --feedback` counts
    false alarms as normal, `train --resume --feedback` learns from them, and
    both say how many of the missed defects are found afterwards. Without images
    it is told what the folder holds.
    """
    from keras_sspcab.data import MarkedImages

    given = {"false_alarm": false_alarm, "missed": missed, "": remove}
    chosen = [name for name, is_given in given.items() if is_given]
    if len(chosen) != bool(images):
        raise ValueError(
            "Images are marked by one of --false-alarm, --missed and "
            f"--remove. Received: {len(images or [])} images with "
            f"{len(chosen)} of these"
        )
    marked = MarkedImages(feedback)
    for image in images or []:
        if chosen[0]:
            marked.add(image, chosen[0])
        elif not marked.remove(image.read_bytes()):
            raise ValueError(f"{image} is not marked in {feedback}")
    say(
        f"{feedback} holds {len(marked.false_alarms)} false alarms and "
        f"{len(marked.missed)} missed defects."
    )
