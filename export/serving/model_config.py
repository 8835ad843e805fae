"""`models.config`: which models and versions TensorFlow Serving serves."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from keras_sspcab.export.manifest import make_readable
from keras_sspcab.files import write_text
from keras_sspcab.imports import import_optional

MODELS_CONFIG = "models.config"

#: Where the repository is mounted in a container.
MOUNT = "/repository"

_HEADER = """\
# Models that TensorFlow Serving serves. `keras-sspcab package` rewrites this
# file and keeps what was changed in it, but for comments.
"""


class ModelsConfig:
    """The file of a repository, as TensorFlow Serving's own message."""

    def __init__(self, directory: pathlib.Path) -> None:
        import_optional(
            "tensorflow_serving", "`models.config` needs its protos", "serve"
        )
        from google.protobuf import text_format
        from tensorflow_serving.config import model_server_config_pb2

        self.path = directory / MODELS_CONFIG
        self._message: Any = model_server_config_pb2.ModelServerConfig()
        if not self.path.is_file():
            return
        try:
            text_format.Parse(self.path.read_text("utf-8"), self._message)
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{os.fspath(self.path)} is no ModelServerConfig: {error}. "
                "Correct it, or remove it and package a model to have it "
                "rewritten."
            ) from error

    @property
    def _configs(self) -> Any:
        return self._message.model_config_list.config

    @property
    def names(self) -> list[str]:
        """Names of the models, in the order of the file."""
        return [config.name for config in self._configs]

    def folder(self, name: str) -> pathlib.Path:
        """Returns the folder of a model's versions on this machine."""
        base = pathlib.PurePosixPath(self._find(name).base_path)
        if base.is_relative_to(MOUNT):
            return self.path.parent / base.relative_to(MOUNT)
        return pathlib.Path(base)

    def labels(self, name: str) -> dict[str, int]:
        """Returns versions of a model by label."""
        return dict(self._find(name).version_labels)

    def add(self, name: str) -> bool:
        """Adds a model that serves its newest version, unless it is listed."""
        if name in self.names:
            return False
        self._configs.add(
            name=name,
            base_path=f"{MOUNT}/models/{name}",
            model_platform="tensorflow",
        )
        return True

    def served(self, name: str, versions: Sequence[int]) -> tuple[int, ...]:
        """Returns the versions on disk that the policy of a model serves."""
        versions = sorted(versions)
        if name not in self.names:  # not yet
            return tuple(versions[-1:])
        policy = self._find(name).model_version_policy
        choice = policy.WhichOneof("policy_choice")
        if choice == "specific":
            return tuple(v for v in versions if v in policy.specific.versions)
        if choice == "all":
            return tuple(versions)
        return tuple(versions[-max(policy.latest.num_versions, 1) :])

    def pin(self, name: str, version: int | None) -> None:
        """Pins a model to a version; None serves the newest one."""
        policy = self._find(name).model_version_policy
        policy.Clear()
        if version is None:
            policy.latest.num_versions = 1
        else:
            policy.specific.versions.append(version)

    def write(self) -> None:
        """Writes the file atomically."""
        from google.protobuf import text_format

        text = text_format.MessageToString(self._message)
        write_text(os.fspath(self.path), _HEADER + text)
        make_readable(self.path)

    def _find(self, name: str) -> Any:
        return self._configs[self.names.index(name)]
