"""`keras-sspcab serve`."""

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import log_to_console, read_token, say
from keras_sspcab.signals import deferred_signals

if TYPE_CHECKING:
    from keras_sspcab.export.serving import ServerOptions

_MIB = 1 << 20


def serve(
    model: Annotated[
        Path,
        typer.Argument(
            help="Model repository, folder of models or versions, SavedModel, "
            "run folder, or .keras file."
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen at.")
    ] = "127.0.0.1",
    grpc_port: Annotated[
        int, typer.Option(help="Port of gRPC; 0 takes a free one.")
    ] = 8500,
    rest_port: Annotated[
        int, typer.Option(help="Port of REST and the page; 0 takes a free one.")
    ] = 8501,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name under which the page and REST are asked for, besides "
            "localhost and addresses. Repeatable. Default: with a loopback "
            "as --host none, else any."
        ),
    ] = None,
    version: Annotated[
        list[int] | None,
        typer.Option(
            min=0,
            help="Version to serve. Repeatable. Default: as models.config "
            "says, or the newest.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=VERSION", help="Label of a version. Repeatable."
        ),
    ] = None,
    max_batch_size: Annotated[
        int, typer.Option(help="Images that are computed together.")
    ] = 32,
    batch_timeout: Annotated[
        float,
        typer.Option(min=0, help="Milliseconds to wait for others while busy."),
    ] = 5.0,
    threads: Annotated[
        int | None, typer.Option(help="Runs of models at the same time.")
    ] = None,
    max_queue: Annotated[
        int, typer.Option(help="Requests that may wait for an answer.")
    ] = 128,
    timeout: Annotated[
        float, typer.Option(help="Seconds that a request may take.")
    ] = 30.0,
    max_request: Annotated[
        int, typer.Option(min=1, help="Size of a request, in MiB.")
    ] = 32,
    max_memory: Annotated[
        int,
        typer.Option(
            min=1, help="Memory to read requests and write answers, in MiB."
        ),
    ] = 1024,
    max_pixels: Annotated[
        float,
        typer.Option(
            min=0.001, help="Size of an encoded image, in megapixels."
        ),
    ] = 33.5,
    allow_non_finite: Annotated[
        bool,
        typer.Option("--allow-non-finite", help="Let NaN into the model."),
    ] = False,
    feedback: Annotated[
        Path | None,
        typer.Option(
            help="Folder for images that are marked on the page as false "
            "alarm or missed; the page also serves older versions then."
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token that clients must send."),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file of the certificate chain.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="PEM file of the private key.")
    ] = None,
) -> None:
    """Serve models as TensorFlow Serving does, on this machine.

    A local replacement for it, with the same protocols (gRPC and REST),
    batching and reload of new versions, and a page to try images on.
    """
    from keras_sspcab.export.serving.server import ServerOptions

    options = ServerOptions(
        host=host,
        grpc_port=grpc_port,
        rest_port=rest_port,
        allowed_hosts=tuple(allowed_host or ()),
        versions=tuple(version) if version else None,
        labels=dict(_parse_label(text) for text in label or ()),
        max_batch_size=max_batch_size,
        batch_timeout=batch_timeout / 1000,
        threads=threads,
        max_queue=max_queue,
        timeout=timeout,
        max_request_bytes=max_request * _MIB,
        max_pending_bytes=max(256, 4 * max_request) * _MIB,
        max_work_bytes=max_memory * _MIB,
        max_image_pixels=round(max_pixels * 1e6),
        allow_non_finite=allow_non_finite,
        feedback=feedback,
        token=None if token_file is None else read_token(token_file),
        tls_certificate=tls_certificate,
        tls_key=tls_key,
    )
    # Only Keras models need it; it chooses the backend of Keras.
    import_backend()
    from keras_sspcab.export.serving.servable import servable_folder

    with servable_folder(model) as folder:
        if folder != model:
            say(f"Exported {folder.name} to a temporary folder.")
        _serve(folder, options)


def _serve(folder: Path, options: "ServerOptions") -> None:
    import tensorflow  # noqa: F401

    from keras_sspcab.export.serving.server import Server

    # A full collection would visit all of TensorFlow and delay every request;
    # the lists in a JSON request set it off.
    gc.collect()
    gc.freeze()
    with (
        log_to_console("keras_sspcab.export.serving"),
        deferred_signals(message="Stopped at once.") as stopping,
        Server(folder, options) as server,
    ):
        say(f"Page and REST: {server.rest_url}", style="green")
        say(f"gRPC:          {server.grpc_target}", style="green")
        say("Stop with Ctrl+C.")
        while not stopping.signal and not server.wait(timeout=0.2):
            pass
        if stopping.signal:
            say("Stopping; requests under way are finished.")
    if not stopping.signal:
        raise ValueError("The server has ended by itself; see above.")


def _parse_label(text: str) -> tuple[str, int]:
    name, _, version = text.rpartition("=")
    if not name or not (version.isascii() and version.isdigit()):
        raise ValueError(
            f"--label must be of the form LABEL=VERSION. Received: {text!r}"
        )
    return name, int(version)
