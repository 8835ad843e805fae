"""Imports Keras and TensorFlow without their chatter."""

import contextlib
import os
import sys
from collections.abc import Iterator

_LOG_LEVEL, _SILENT = "TF_CPP_MIN_LOG_LEVEL", "3"


def import_backend() -> None:
    """Imports Keras, TensorFlow and all that saved models may hold.

    Messages of TensorFlow's native code are hidden unless the user has set
    `TF_CPP_MIN_LOG_LEVEL` to less than 3.

    Raises:
        ImportError: If there is no TensorFlow.
    """
    quiet = os.environ.setdefault(_LOG_LEVEL, _SILENT) == _SILENT
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        # Some lines are written before TensorFlow looks at the level.
        with _native_stderr_hidden() if quiet else contextlib.nullcontext():
            import tensorflow as tf

            import keras_sspcab.applications  # noqa: F401
        if quiet:
            tf.get_logger().setLevel("ERROR")
    except ModuleNotFoundError as error:
        if error.name not in ("tensorflow", "keras"):
            raise
        raise ImportError(
            "This command needs TensorFlow. Install it with "
            "`pip install keras-sspcab[cpu]` or `keras-sspcab[gpu]`"
        ) from error


@contextlib.contextmanager
def _native_stderr_hidden() -> Iterator[None]:
    """Sends what native code writes to file descriptor 2 nowhere."""
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
