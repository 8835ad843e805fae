"""`keras-sspcab package`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import optional_value, say, warn

if TYPE_CHECKING:
    from keras_sspcab.export.serving.packaging import PackageResult

_PREVIOUS = "previous"
_LATEST = "latest"

#: Accepts `--rollback` without a value.
PackageCommand = optional_value(
    "--rollback", _PREVIOUS, lambda after: not after.startswith("-")
)


def package(
    to: Annotated[
        Path, typer.Option(help="The model repository; made if it is missing.")
    ],
    model: Annotated[
        Path | None, typer.Argument(help="Run folder, or a .keras file.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the model. Default: that of the host, or the only "
            "one that can be rolled back."
        ),
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(help="Number of the version. Default: the next."),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            help="Versions to keep, besides those served. Default: 3."
        ),
    ] = None,
    rollback: Annotated[
        str | None,
        typer.Option(
            metavar=f"[VERSION|{_LATEST}]",
            help="Instead of packaging, serve an older version: the one "
            "before, or this one; 'latest' ends it.",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of images or videos to compare on and to warm up "
            "with. Default: those of the run."
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="float32, float16 or bfloat16.")
    ] = "float32",
    jit_compile: Annotated[
        bool, typer.Option("--jit-compile", help="Let XLA compile the graph.")
    ] = False,
    max_batch_size: Annotated[
        int | None,
        typer.Option(help="Images computed at a time. Default: 32, or less."),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(help="GPUs of each server, in new manifests. Default: 1."),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            help="Docker image, in new manifests. "
            "Default: TensorFlow Serving of the installed API's version."
        ),
    ] = None,
) -> None:
    """Package a model for TensorFlow Serving, in a repository of versions.

    Checked, warmed up and with all files that a server needs; or roll back.
    """
    if (model is None) == (rollback is None):
        raise ValueError(
            "Give either a model to package, or --rollback. "
            f"Received: MODEL={model}, --rollback={rollback}"
        )
    if model is None:
        given = {
            "--images": images,
            "--version": version,
            "--keep": keep,
            "--max-batch-size": max_batch_size,
            "--image": image,
            "--gpus": gpus,
            "--precision": precision if precision != "float32" else None,
            "--jit-compile": jit_compile or None,
        }
        if extra := [key for key, value in given.items() if value is not None]:
            raise ValueError(
                f"{', '.join(extra)} is for a model that is packaged. "
                f"Received: --rollback {rollback}. To serve a version again, "
                "name it there: --rollback 2"
            )
        _roll_back(to, name, str(rollback))
        return
    import_backend()
    from keras_sspcab.export.serving.packaging import package_model

    result = package_model(
        model,
        to,
        images,
        name=name,
        version=version,
        keep=3 if keep is None else keep,
        precision=precision,
        jit_compile=jit_compile,
        max_batch_size=max_batch_size,
        gpus=1 if gpus is None else gpus,
        image=image,
    )
    _show(result, to)
    if gpus is not None or image is not None:
        _warn_of_kept_manifests(result.written, to)


def _roll_back(directory: Path, name: str | None, wanted: str) -> None:
    from keras_sspcab.export.serving.repository import Repository

    repository = Repository(directory)
    name = repository.resolve(name)
    if wanted == _LATEST:
        version = repository.unpin(name)
        say(f"{name} serves its newest version again: {version}", style="green")
        return
    if wanted != _PREVIOUS and not (wanted.isascii() and wanted.isdigit()):
        raise ValueError(
            f"--rollback takes a version, {_LATEST!r}, or nothing for the one "
            f"before. Received: {wanted!r}"
        )
    version = repository.rollback(
        name, None if wanted == _PREVIOUS else int(wanted)
    )
    say(f"{name} serves version {version}", style="green")


def _warn_of_kept_manifests(written: Sequence[str], directory: Path) -> None:
    from keras_sspcab.export.serving.deployment import MANIFESTS

    if kept := [file for file in MANIFESTS if file not in written]:
        warn(
            f"{', '.join(kept)} in {os.fspath(directory)} were there and stay "
            "as they are: --gpus and --image count in new ones. Remove them "
            "and package again to have them rewritten"
        )


def _show(result: "PackageResult", directory: Path) -> None:
    if result.parity is not None:
        say(result.parity.summary())
    for version in result.removed:
        say(f"Removed version {version}")
    if result.written:
        say(f"Wrote {', '.join(result.written)} in {os.fspath(directory)}")
    say(f"Wrote {os.fspath(result.path)}", style="green")
    if result.version not in result.served:
        served = ", ".join(map(str, result.served)) or "no version"
        warn(
            f"{result.name} is rolled back and serves {served}. Serve the new "
            f"one: keras-sspcab package --to {directory} --name {result.name} "
            f"--rollback {_LATEST}"
        )
