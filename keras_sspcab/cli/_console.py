"""What the commands print, and how errors of the user are shown."""

import dataclasses
import functools
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from keras_sspcab.cli._wording import name_options

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
