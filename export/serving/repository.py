"""A folder of versioned models that TensorFlow Serving mounts."""

import contextlib
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

from keras_sspcab.checks import standardize_int
from keras_sspcab.export.manifest import (
    MAX_VERSION,
    find_versions,
    make_readable,
    verify_version,
)
from keras_sspcab.export.serving.model_config import ModelsConfig
from keras_sspcab.files import temporary_path
from keras_sspcab.locks import folder_lock

# Names are part of paths and URLs; a number would be taken for a version.
_NAME = re.compile(r"(?!\d+$)[A-Za-z0-9][A-Za-z0-9_.-]*")


class Repository:
    """Models and their versions in a folder.

    In `models/NAME/VERSION/` are a SavedModel, `parity.json`, warm-up requests
    and `MANIFEST.sha256`; in `models.config` which of them are served. How
    stands in `batching.config`, `monitoring.config`, `docker-compose.yml`,
    `kubernetes.yaml`, `kserve.yaml`, `verify.sh` and `README.md`.

    Args:
        directory: The folder; it need not exist.

    Example:
    >>> Repository("nowhere").versions("bricks")
    []
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
        """Returns the folder of a version, whether or not it exists."""
        return self.directory / "models" / name / str(version)

    def served(self, name: str | None = None) -> tuple[int, ...]:
        """Returns the versions that `models.config` serves."""
        name = self.resolve(name)
        return ModelsConfig(self.directory).served(name, self.versions(name))

    def resolve(self, name: str | None) -> str:
        """Returns the name of a model that there is; None is the only one."""
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
        """Returns the number of a new version, which must be above all others.

        The newest version is the one with the largest number. None takes the
        next.
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
        """Moves a complete version into the repository; returns its path.

        The folder `staged` must be in the same file system.
        """
        verify_version(staged)
        for path in (staged, *staged.rglob("*")):
            make_readable(path)
        target = self.path(name, version)
        _move_durably(staged, target)
        for path in (target.parent, target.parents[1], self.directory):
            make_readable(path)
        config = ModelsConfig(self.directory)
        if config.add(name):
            config.write()
        return target

    def prune(self, name: str, keep: int) -> list[int]:
        """Removes versions but for the `keep` newest and those served.

        Returns the versions that were removed.
        """
        kept = {*self.versions(name)[-keep:], *self.served(name)}
        removed = [v for v in self.versions(name) if v not in kept]
        for version in removed:
            # Moved first, so that nobody sees half of it.
            with staging_folder(self.directory) as staged:
                os.rename(self.path(name, version), staged / str(version))
        return removed

    def rollback(
        self, name: str | None = None, version: int | None = None
    ) -> int:
        """Pins a model to an older version, after checking its files.

        New versions are packaged as before, but not served until `unpin`.

        Args:
            name: The model; None if there is only one.
            version: The version; None takes the one before the oldest served.

        Returns:
            The version that is served from now on.

        Raises:
            ValueError: If there is no such version, or its files are not those
                that were packaged.
        """
        name = self.resolve(name)
        with folder_lock(self.directory, is_deep=False):
            versions = self.versions(name)
            listed = f"There are: {', '.join(map(str, versions))}"
            if version is None:
                served = min(self.served(name) or versions[-1:])
                older = [v for v in versions if v < served]
                if not older:
                    raise ValueError(
                        f"There is no version of {name} before {served}, which "
                        f"is served. {listed}"
                    )
                version = older[-1]
            if version not in versions:
                raise ValueError(
                    f"There is no version {version} of {name}. {listed}"
                )
            self._serve(name, version, pinned=True)
        return version

    def unpin(self, name: str | None = None) -> int:
        """Serves the newest version of a model again, and returns its number.

        Its files are checked first. None is the only model.
        """
        name = self.resolve(name)
        with folder_lock(self.directory, is_deep=False):
            newest = self.versions(name)[-1]
            self._serve(name, newest, pinned=False)
        return newest

    def _serve(self, name: str, version: int, pinned: bool) -> None:
        verify_version(self.path(name, version))
        config = ModelsConfig(self.directory)
        config.add(name)
        config.pin(name, version if pinned else None)
        config.write()


def check_name(name: str) -> None:
    """Raises an error unless a model's name is valid in paths and URLs."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            "The name of a model in a repository consists of letters, digits, "
            "'_', '.' and '-', begins with a letter or digit and is no "
            f"number. Received: name={name!r}"
        )


@contextlib.contextmanager
def staging_folder(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty folder in a repository, which is removed at the end.

    It is in the same file system as `models`, and no server looks there. What
    a killed process leaves of it goes with the next lock.
    """
    folder = pathlib.Path(temporary_path(directory / "staging"))
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move_durably(staged: pathlib.Path, target: pathlib.Path) -> None:
    """Gives a complete folder its name, once all of it is on the disk."""
    for parent, _, names in os.walk(staged):
        for name in names:
            _sync(os.path.join(parent, name))
        _sync(parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(staged, target)
    _sync(target.parent)


def _sync(path: str | os.PathLike[str]) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder, where these cannot be opened
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
