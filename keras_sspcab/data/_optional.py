"""Packages that only a part of the data needs."""

import importlib
from typing import Any


def import_optional(name: str, advice: str) -> Any:
    """Returns a module.

    Raises:
        ImportError: If it is not installed; `advice` is the message.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(advice) from error
