"""Serving: the embedded server, and repositories for TensorFlow Serving.

`keras_sspcab.export` has the client of both, which does without TensorFlow.
"""

from typing import TYPE_CHECKING

from keras_sspcab.imports import lazy_names

if TYPE_CHECKING:
    from keras_sspcab.export.serving.packaging import package_model
    from keras_sspcab.export.serving.repository import Repository
    from keras_sspcab.export.serving.server import Server, ServerOptions

__all__ = ["Repository", "Server", "ServerOptions", "package_model"]

__getattr__ = lazy_names(
    __name__,
    {
        "Repository": f"{__name__}.repository",
        "Server": f"{__name__}.server",
        "ServerOptions": f"{__name__}.server",
        "package_model": f"{__name__}.packaging",
    },
)
