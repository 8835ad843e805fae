"""Serving: embedded server, client, and what TensorFlow Serving needs."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_sspcab.export.serving.client import (
        AsyncClient,
        Client,
        Prediction,
        RetryPolicy,
        ServingClientError,
    )
    from keras_sspcab.export.serving.server import Server, ServerOptions

# Where the public names live; they are imported when they are used.
_NAMES = {
    "AsyncClient": "keras_sspcab.export.serving.client",
    "Client": "keras_sspcab.export.serving.client",
    "Prediction": "keras_sspcab.export.serving.client",
    "RetryPolicy": "keras_sspcab.export.serving.client",
    "Server": "keras_sspcab.export.serving.server",
    "ServerOptions": "keras_sspcab.export.serving.server",
    "ServingClientError": "keras_sspcab.export.serving.client",
}

__all__ = [
    "AsyncClient",
    "Client",
    "Prediction",
    "RetryPolicy",
    "Server",
    "ServerOptions",
    "ServingClientError",
]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_NAMES[name]), name)
