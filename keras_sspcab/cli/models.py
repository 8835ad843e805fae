"""`keras-sspcab models`."""

import typer
from rich.table import Table

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import command, say, show

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


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command()(command(models))


def models() -> None:
    """List the models: what they are for, and what to expect of them."""
    import_backend()
    from keras_sspcab.hosts import available_applications
    from keras_sspcab.runs import ModelConfig

    default = ModelConfig().name
    table = Table(title="Models", show_lines=True)
    table.add_column("model", no_wrap=True)
    for column in ("data", "for", "training, 2 CPU cores", "expect", "GPU"):
        table.add_column(column)
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
