"""Serving: client, embedded server, and repositories for TensorFlow Serving.

All names are imported when they are used: the client does without TensorFlow.
"""

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
    from keras_sspcab.export.serving.packaging import package_model
    from keras_sspcab.export.serving.repository import Repository
    from keras_sspcab.export.serving.server import Server, ServerOptions

__all__ = [
    "AsyncClient",
    "Client",
    "Prediction",
    "Repository",
    "RetryPolicy",
    "Server",
    "ServerOptions",
    "ServingClientError",
    "package_model",
]

_HOMES = {
    "Repository": "repository",
    "Server": "server",
    "ServerOptions": "server",
    "package_model": "packaging",
}

__getattr__ = lazy_names(
    __name__,
    {name: f"{__name__}.{_HOMES.get(name, 'client')}" for name in __all__},
)
