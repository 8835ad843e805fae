"""PyArrow and Ray: optional, imported at the first use."""

import functools
import os
from typing import Any

from keras_sspcab.data._optional import import_optional

#: How to get them, for messages.
INSTALL_HINT = 'Install it with: pip install "keras-sspcab[scale]"'


@functools.cache
def pyarrow() -> Any:
    """Returns the module `pyarrow`, with `pyarrow.parquet` in it.

    Raises:
        ImportError: If it is not installed; the message says how to do that.
    """
    advice = f"Scores in Parquet files need PyArrow. {INSTALL_HINT}"
    import_optional("pyarrow.parquet", advice)
    return import_optional("pyarrow", advice)


@functools.cache
def ray() -> Any:
    """Returns the module `ray`, with `ray.data` in it.

    Raises:
        ImportError: If it is not installed; the message says how to do that.
    """
    # Its native code writes warnings about Ray Data's own actors.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    advice = (
        f"The engine 'ray' needs Ray Data. {INSTALL_HINT}. The engine 'local' "
        "does without."
    )
    import_optional("ray.data", advice)
    return import_optional("ray", advice)
