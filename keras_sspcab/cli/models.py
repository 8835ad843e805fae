"""`keras-sspcab models` and `settings`: what can be chosen."""

from typing import Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import say, show

#: The models by what they learn from, for help texts; the default comes first.
NAMES = {
    "images": (
        *("multiscale_padim", "padim", "patchcore"),
        *("autoencoder", "draem", "cutpaste"),
    ),
    "videos": ("future_frame", "mnad"),
    "objects of videos": (
        "hf2vad",
        "background_agnostic",
        "object_autoencoder",
    ),
}


def list_names(default: str = "") -> str:
    """Returns the names of the models in a sentence, the default marked."""
    parts = []
    for kind, names in NAMES.items():
        marked = (f"{n} (default)" if n == default else n for n in names)
        parts.append(f"{kind}: {', '.join(marked)}")
    return f"{'; '.join(parts)}.".capitalize()


def models() -> None:
    """List the models: what they are for, and what to expect of them."""
    import_backend()
    from keras_sspcab.hosts import available_applications
    from keras_sspcab.runs import ModelConfig

    default = ModelConfig().name
    table = Table(
        Column("model", no_wrap=True),
        *("data", "for", "training, 2 CPU cores", "expect", "GPU"),
        title="Models",
        show_lines=True,
    )
    kinds = ("image", "video", "objects")
    for name, host in sorted(
        available_applications().items(),
        # The default first, then by what they look at.
        key=lambda item: (item[0] != default, kinds.index(item[1].kind)),
    ):
        guide = host.guide
        table.add_row(
            f"{name} (default)" if name == default else name,
            host.kind,
            guide.purpose or "-",
            guide.training_time or "-",
            guide.expectation or "-",
            "needed" if guide.needs_gpu else "-",
        )
    show(table)
    say(
        "Times and results are those measured, of about 300 images and at "
        "default settings unless they say otherwise. Choose with: keras-sspcab "
        "train --model MODEL"
    )


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
    folded = ("default", "values", "meaning")
    table = Table(
        Column("key", no_wrap=True),
        *(Column(name, overflow="fold") for name in folded),
        title=f"Settings of {model or ModelConfig().name}",
    )
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
