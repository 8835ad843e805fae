"""Models and their versions on disk."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

from keras_sspcab.export.serving.model_config import MODELS_CONFIG, ModelsConfig
from keras_sspcab.export.versions import find_versions, is_version


@dataclasses.dataclass(frozen=True)
class Location:
    """Folder of a model's versions, or of one SavedModel.

    Attributes:
        version: Number of the one SavedModel; None for a folder of versions.
        policy: Chooses the versions to serve among those on disk; None for
            the newest one that can be loaded.
        labels: Versions by label.
        is_listed: Whether `models.config` names the model. Its versions must
            then have checksums, and it is unloaded once it is no longer named.
    """

    path: pathlib.Path
    version: int | None = None
    policy: Callable[[Sequence[int]], tuple[int, ...]] | None = None
    labels: Mapping[str, int] = dataclasses.field(default_factory=dict)
    is_listed: bool = False

    def versions(self) -> dict[int, pathlib.Path]:
        """Returns the folders of all versions, by number."""
        if self.version is not None:
            return {self.version: self.path}
        return find_versions(self.path)


def find_models(folder: str | os.PathLike[str]) -> dict[str, Location]:
    """Returns the models of a folder, by name; see `Server` for its layout."""
    path = pathlib.Path(folder).resolve()
    if (path / MODELS_CONFIG).is_file():
        return _find_listed(path)
    if (path / "models").is_dir() and not find_versions(path):
        path = path / "models"
    if (path / "saved_model.pb").is_file():
        # A version is named after its model.
        if is_version(path.name):
            return {path.parent.name: Location(path, int(path.name))}
        return {path.name: Location(path, 1)}
    if find_versions(path):
        return {path.name: Location(path)}
    locations = {
        entry.name: Location(entry)
        for entry in (sorted(path.iterdir()) if path.is_dir() else ())
        if not entry.name.startswith(".") and find_versions(entry)
    }
    if not locations:
        raise ValueError(
            f"There is no model at {os.fspath(folder)!r}. It must be a "
            "repository with `models/NAME/VERSION/saved_model.pb` in it, the "
            "folder of a model, or that of a SavedModel."
        )
    return locations


def _find_listed(directory: pathlib.Path) -> dict[str, Location]:
    config = ModelsConfig(directory)
    if not config.names:
        raise ValueError(f"{os.fspath(config.path)} names no models.")
    return {
        name: Location(
            config.folder(name),
            policy=functools.partial(config.served, name),
            labels=config.labels(name),
            is_listed=True,
        )
        for name in config.names
    }
