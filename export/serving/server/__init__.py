"""The embedded server, a local replacement for TensorFlow Serving."""

from keras_sspcab.export.serving.server.options import ServerOptions
from keras_sspcab.export.serving.server.server import Server

__all__ = ["Server", "ServerOptions"]
