"""A folder of versioned models that TensorFlow Serving can mount."""

import os
import pathlib
import re
from typing import Any

from keras_sspcab.checks import standardize_int
from keras_sspcab.export.serving.manifest import verify_version
from keras_sspcab.export.serving.model_config import ModelsConfig
from keras_sspcab.export.serving.staging import (
    move_into_place,
    remove_folder,
    writing,
)
from keras_sspcab.export.versions import MAX_VERSION, find_versions

# It stands in paths and URLs; a number would be taken for a version.
_NAME = re.compile(r"(?!\d+$)[A-Za-z0-9][A-Za-z0-9_.-]*")


class Repository:
    """Models and their versions in a folder.

    Files:
        models/NAME/VERSION/: a SavedModel, `parity.json`, warm-up requests and
            `MANIFEST.sha256`.
        models.config: which models and versions are served.
        batching.config, monitoring.config, docker-compose.yml, kubernetes.yaml,
            kserve.yaml, README.md: how they are served.

    Args:
        directory: The folder; it need not exist.
    """

    def __init__(self, directory: Any) -> None:
        self.directory = pathlib.Path(directory)

    @property
    def names(self) -> list[str]:
        """Names of the models that have versions."""
        models = self.directory / "models"
        if not models.is_dir():
            return []
        names = sorted(path.name for path in models.iterdir())
        return [name for name in names if self.versions(name)]

    def versions(self, name: str) -> list[int]:
        """Returns the versions of a model, oldest first."""
        return sorted(find_versions(self.directory / "models" / name))

    def path(self, name: str, version: int) -> pathlib.Path:
        """Folder of a version, whether or not it exists."""
        return self.directory / "models" / name / str(version)

    def served(self, name: str | None = None) -> tuple[int, ...]:
        """Returns the versions that `models.config` serves.

        Args:
            name: The model; None where there is one only.
        """
        name = self.resolve(name)
        return ModelsConfig(self.directory).served(name, self.versions(name))

    def is_pinned(self, name: str) -> bool:
        """Whether a model serves other versions than its newest."""
        return bool(ModelsConfig(self.directory).pinned(name))

    def resolve(self, name: str | None) -> str:
        """Returns the name of a model, or of the only one.

        Raises:
            ValueError: If there is no such model, or several and no name.
        """
        names = self.names
        if name is None and len(names) == 1:
            return names[0]
        if name is None and names:
            raise ValueError(
                f"{os.fspath(self.directory)!r} holds several models; say "
                f"which by its name. Choose among: {', '.join(names)}"
            )
        if name not in names:
            raise ValueError(
                f"There is no {'model' if name is None else f'model {name!r}'} "
                f"in {os.fspath(self.directory)!r}. There are: "
                f"{', '.join(names) or 'none'}"
            )
        return name

    def next_version(self, name: str, version: int | None = None) -> int:
        """Returns the number of a new version.

        Args:
            name: Name of the model.
            version: The number wanted; None takes the next.

        Raises:
            ValueError: If the number is not above all others: the newest
                version is the one with the largest number.
        """
        newest = max(self.versions(name), default=0)
        if version is None:
            return newest + 1
        version = standardize_int(version, "version", minimum=1)
        if not newest < version <= MAX_VERSION:
            raise ValueError(
                f"Versions of {name} count up, and the newest one is "
                f"{newest}. Received: version={version}. Leave it out to take "
                "the next; to serve an older version again, roll back to it."
            )
        return version

    def publish(
        self, staged: pathlib.Path, name: str, version: int
    ) -> pathlib.Path:
        """Moves a complete version into the repository.

        Args:
            staged: Its folder, in the same file system.
            name: Name of the model.
            version: Its number.

        Returns:
            Where it lies now.
        """
        verify_version(staged)
        target = self.path(name, version)
        move_into_place(staged, target)
        config = ModelsConfig(self.directory)
        if config.add(name):
            config.write()
        return target

    def prune(self, name: str, keep: int) -> list[int]:
        """Removes the oldest versions, but none that is served.

        Args:
            name: Name of the model.
            keep: How many of the newest to keep.

        Returns:
            The versions that were removed.
        """
        kept = {*self.versions(name)[-keep:], *self.served(name)}
        removed = [v for v in self.versions(name) if v not in kept]
        for version in removed:
            remove_folder(self.directory, self.path(name, version))
        return removed

    def rollback(
        self, name: str | None = None, version: int | None = None
    ) -> int:
        """Pins a model to an older version, after checking its files.

        New versions are packaged as before, but not served until `unpin`.

        Args:
            name: The model; None where there is one only.
            version: The version; None takes the one before the oldest served.

        Returns:
            The version that is served from now on.

        Raises:
            ValueError: If there is no such version.
            ManifestError: If its files are not those that were packaged.
        """
        name = self.resolve(name)
        with writing(self.directory):
            versions = self.versions(name)
            if version is None:
                served = self.served(name) or versions[-1:]
                older = [v for v in versions if v < min(served)]
                if not older:
                    raise ValueError(
                        f"There is no version of {name} before "
                        f"{min(served)}, which is served. There are: "
                        f"{_show(versions)}"
                    )
                version = older[-1]
            if version not in versions:
                raise ValueError(
                    f"There is no version {version} of {name}. There are: "
                    f"{_show(versions)}"
                )
            self._serve(name, version, pinned=True)
        return version

    def unpin(self, name: str | None = None) -> int:
        """Serves the newest version of a model again, whatever it is.

        Args:
            name: The model; None where there is one only.

        Returns:
            The version that is the newest now.

        Raises:
            ManifestError: If its files are not those that were packaged.
        """
        name = self.resolve(name)
        with writing(self.directory):
            newest = self.versions(name)[-1]
            self._serve(name, newest, pinned=False)
        return newest

    def _serve(self, name: str, version: int, pinned: bool) -> None:
        verify_version(self.path(name, version))
        config = ModelsConfig(self.directory)
        config.add(name)
        config.pin(name, version if pinned else None)
        config.write()


def standardize_name(name: str) -> str:
    """Returns the name of a model, if it is fit for paths and URLs."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            "The name of a model in a repository consists of letters, digits, "
            "'_', '.' and '-', begins with a letter or digit and is no "
            f"number. Received: name={name!r}"
        )
    return name


def _show(versions: list[int]) -> str:
    return ", ".join(map(str, versions)) or "none"
