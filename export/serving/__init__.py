"""Serving: embedded server, client, and what TensorFlow Serving needs."""

from typing import TYPE_CHECKING

from keras_sspcab.imports import lazy_names

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


__getattr__ = lazy_names(__name__, _NAMES)
