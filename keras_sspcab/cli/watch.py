"""`keras-sspcab watch`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import (
    log_to_console,
    optional_value,
    read_token,
    say,
)
from keras_sspcab.signals import deferred_signals

_PORT = 8502
_PAGE = "--page: "

#: Accepts `--page` without a port.
WatchCommand = optional_value("--page", str(_PORT), str.isdecimal)


def watch(
    model: Annotated[
        Path,
        typer.Argument(help="Run folder, .keras file, or SavedModel version."),
    ],
    source: Annotated[
        str,
        typer.Argument(
            help="Camera (0, /dev/video0), URL (rtsp://..., http://...), video "
            "file or folder of frames. $NAME stands for what the environment "
            "has."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for alarms.jsonl, pictures and clips.")
    ] = Path("watch"),
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Score from which on a frame is anomalous. Default: as the "
            "model decides."
        ),
    ] = None,
    alarm_after: Annotated[
        int, typer.Option(help="Anomalous frames in a row that begin an alarm.")
    ] = 3,
    clear_after: Annotated[
        int, typer.Option(help="Normal frames in a row that end it.")
    ] = 10,
    before: Annotated[
        float, typer.Option(help="Seconds of a clip before its alarm.")
    ] = 5.0,
    max_clip: Annotated[
        float, typer.Option(help="Seconds of a clip, at most; 0: no clips.")
    ] = 60.0,
    keep: Annotated[
        float,
        typer.Option(
            help="Megabytes of clips and pictures; the oldest are removed."
        ),
    ] = 1000.0,
    webhook: Annotated[
        str | None,
        typer.Option(help="URL that alarms are posted to, as JSON."),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(help="Seconds without a frame: the source is lost."),
    ] = 10.0,
    reconnect: Annotated[
        int | None,
        typer.Option(
            help="Tries in a row to open a lost source again, before it is "
            "given up. Default: for ever."
        ),
    ] = None,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast", help="A file: as fast as possible, leaving out nothing."
        ),
    ] = False,
    stride: Annotated[
        int | None,
        typer.Option(
            help="Hosts of video: frames from one of a clip to the next. "
            "Default: as in training, or 1."
        ),
    ] = None,
    page: Annotated[
        int | None,
        typer.Option(
            metavar="[PORT]",
            help=f"Serve a live page. Default: at port {_PORT}; 0 takes a free "
            "one.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help=f"{_PAGE}address to listen at.")
    ] = "127.0.0.1",
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{_PAGE}name under which it is asked for, besides localhost "
            "and addresses. Repeatable."
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help=f"{_PAGE}file with the token that it asks for."),
    ] = None,
) -> None:
    """Watch a camera: score its frames as they come, and keep alarms.

    Where frames come faster than the model is, the newest is scored. A camera
    that is lost is opened again. Ctrl+C ends it.
    """
    import_backend()
    from keras_sspcab.export.serving.server import ServerOptions
    from keras_sspcab.export.watch import (
        Watch,
        WatchOptions,
        load_frame_scorer,
    )

    page_options = None
    if page is not None:
        page_options = ServerOptions(
            host=host,
            rest_port=page,
            allowed_hosts=tuple(allowed_host or ()),
            token=None if token_file is None else read_token(token_file),
        )
    elif host != "127.0.0.1" or allowed_host or token_file:
        raise ValueError(
            "--host, --allowed-host and --token-file are for --page. Received: "
            "no --page"
        )
    options = WatchOptions(
        alarm_after=alarm_after,
        clear_after=clear_after,
        before=before,
        max_clip=max_clip,
        keep=keep * 1e6,
        webhook=webhook,
        timeout=timeout,
        reconnect=reconnect,
        fast=fast,
    )
    scorer = load_frame_scorer(model, stride, threshold)
    watching = Watch(scorer, source, out, options, page_options)
    with (
        log_to_console("keras_sspcab.export.watch"),
        deferred_signals(message="Stopped at once.") as stopping,
    ):
        say(f"{scorer.name} watches {watching.source.name}. Ctrl+C ends it.")
        watching.run(lambda: bool(stopping.signal))
    say(f"The watching has ended: {watching.live.describe_status()}")
    say(f"Alarms are in {out}", style="green")
