"""What commands share: options, what they print, and errors of the user."""

import dataclasses
import functools
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperCommand
from typer.models import OptionInfo

#: Arguments and options of several commands.
FinishedRun = Annotated[Path, typer.Argument(help="Folder of a finished run.")]
TrainedModel = Annotated[
    Path, typer.Argument(help="Run folder, or a .keras file.")
]
NewRun = Annotated[
    Path | None,
    typer.Option(help="Run folder. Default: runs/MODEL-DATA-NUMBER."),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        help="Side that images, frames or objects are resized to, or "
        "HEIGHTxWIDTH. Default: the model's, such as 320, 256 or 64."
    ),
]
OnError = Annotated[
    str | None, typer.Option(help="Broken images or videos: raise or skip.")
]
Log = Annotated[
    list[str] | None,
    typer.Option(
        help="Where it is logged: tensorboard (files in the run folder), "
        "mlflow or wandb. Repeatable. Default: tensorboard."
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        help="Score to flag from, instead of the calibrated threshold."
    ),
]
Sensitivity = Annotated[
    float | None,
    typer.Option(
        help="From 0 to 1, instead of the calibrated threshold, which is 0.5; "
        "1 flags all above the mean of normal images."
    ),
]
Product = Annotated[
    str | None,
    typer.Option(
        help="Which of several products the images show. Default: it is "
        "recognized."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Any other setting, such as model.smoothing=5. Repeatable. "
        "`keras-sspcab settings MODEL` lists all, with defaults.",
    ),
]

# Arguments and settings by the options that they come from.
_OPTIONS = {
    **{"name": "model", "path": "data", "root": "data", "paths": "images"},
    "loggers": "log",
}

_SECTIONS = (
    "data|inspection|model|training|objects|calibration|evaluation|tracking"
)

# Where the output is no terminal, there is no width to respect; tables would
# be folded.
_WIDTH_OF_FILES = 160


@dataclasses.dataclass
class Options:
    """Options of the program itself, not of a command."""

    debug: bool = False


options = Options()


def console(stderr: bool = False) -> Console:
    """Returns the console; without colors and controls in files."""
    shown = Console(stderr=stderr, highlight=False)
    if not shown.is_terminal:
        shown.width = max(shown.width, _WIDTH_OF_FILES)
    return shown


def say(message: str = "", style: str | None = None) -> None:
    """Prints a line; paths in it are neither folded nor taken for markup."""
    console().print(escape(message), style=style, soft_wrap=True)


def warn(message: str) -> None:
    """Prints a warning to the standard error stream."""
    console(stderr=True).print(
        f"Warning: {escape(message)}", style="yellow", soft_wrap=True
    )


def show(table: Table) -> None:
    """Prints a table."""
    console().print(table)


def number(value: float | None) -> str:
    """Formats a number for a table."""
    return "-" if value is None else f"{value:.4g}"


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Shows errors of the user as one line and ends with exit code 2."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            with warnings_shown():
                function(*args, **kwargs)
        except KeyboardInterrupt as error:
            say(str(error) or "Interrupted.", style="yellow")
            number = getattr(error, "signal", signal.SIGINT)
            raise typer.Exit(128 + number) from error
        except Exception as error:
            if options.debug or not _is_of_user(error):
                raise
            message = getattr(error, "message", None) or str(error)
            _show_error(error, name_options(message, function, kwargs))
            raise typer.Exit(2) from error

    return wrapper


def _is_of_user(error: Exception) -> bool:
    # TensorFlow has its own errors for files; naming them would import it.
    return isinstance(error, (ValueError, OSError, ImportError)) or (
        type(error).__module__ == "tensorflow.python.framework.errors_impl"
    )


def _show_error(error: Exception, message: str) -> None:
    console(stderr=True).print(
        f"Error: {escape(message.strip() or type(error).__name__)}",
        style="red",
        soft_wrap=True,
    )
    cause = f"{type(error).__name__}; `keras-sspcab --debug ...` shows where"
    console(stderr=True).print(f"({cause})", style="dim", soft_wrap=True)


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Prints warnings of this package as lines and hides those of others."""
    if options.debug or sys.warnoptions:
        yield
        return

    def show_warning(message: Any, *_: Any, **__: Any) -> None:
        warn(str(message).strip())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", module=r"keras_sspcab\b")
        warnings.showwarning = show_warning
        yield


@contextmanager
def log_to_console(name: str) -> Iterator[None]:
    """Prints what a part of this package logs while it runs."""

    class ConsoleHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            write = say if record.levelno < logging.WARNING else warn
            write(record.getMessage())

    log = logging.getLogger(name)
    before = log.level, log.propagate
    handler = ConsoleHandler()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.level, log.propagate = before


def read_token(path: Path) -> str:
    """Reads the token in a file, which others should not be able to read."""
    if os.name == "posix" and path.stat().st_mode & 0o077:
        warn(f"Others can read the token in {path}; chmod 600 it.")
    return path.read_text("utf-8").strip()


def optional_value(
    option: str, default: str, is_value: Callable[[str], object]
) -> type[TyperCommand]:
    """Returns a command that accepts an option without a value.

    Typer does not. What follows the option is its value if `is_value`.
    """

    class Command(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            following = [*args[1:], "-"]
            return super().parse_args(
                ctx,
                [
                    f"{option}={default}"
                    if arg == option and not is_value(after)
                    else arg
                    for arg, after in zip(args, following, strict=False)
                ],
            )

    return Command


def name_options(
    message: str, command: Callable[..., None], given: Mapping[str, Any]
) -> str:
    """Names options where a message names arguments and settings of Python.

    "The `image_size` argument must" becomes "--image-size must", as does
    "`data.image_size` must" where that option was given, else "--set
    data.image_size must". What stands in a file keeps its name.

    `given` are the values of the command's parameters.
    """
    options = {
        name: (info.param_decls or [f"--{name.replace('_', '-')}"])[0]
        for name, hint in get_type_hints(command, include_extras=True).items()
        for info in getattr(hint, "__metadata__", ())
        if isinstance(info, OptionInfo)
    }

    def of_argument(name: str) -> str | None:
        return options.get(name) or options.get(_OPTIONS.get(name, ""))

    def of_setting(match: re.Match[str]) -> str:
        section, key = match.groups()
        alias = _OPTIONS.get(key)
        name = alias or key
        sections = ("data", "inspection", "model", "training", "tracking")
        is_option = section in sections and name in options
        if is_option and (alias or given.get(name) is not None):
            return options[name]
        return f"--set {section}.{key}" if "settings" in options else match[0]

    def of_advice(match: re.Match[str]) -> str:
        name, value = match.groups()
        if name == "layout" and "settings" in options:
            return f"--set data.layout={value}"
        option = of_argument(name)
        return match[0] if option is None else f"{option} {value}"

    for pattern, replace in (
        (rf"(?<!key )`({_SECTIONS})\.([\w.]+)`(?! in | \()", of_setting),
        (r"[Tt]he `(\w+)` argument", lambda m: of_argument(m[1]) or m[0]),
        (
            r"(?<=Received: )(\w+)=(?=\S)",
            lambda m: f"{of_argument(m[1])} " if of_argument(m[1]) else m[0],
        ),
        (r'\b(\w+)="(\w+)"', of_advice),
    ):
        message = re.sub(pattern, replace, message)
    return message
