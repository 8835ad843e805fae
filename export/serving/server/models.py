"""The models that are served: their versions come and go with the files."""

import asyncio
import contextlib
import dataclasses
import functools
import gc
import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from grpc import StatusCode

from keras_sspcab.export.manifest import find_versions, is_version
from keras_sspcab.export.serving.model_config import MODELS_CONFIG, ModelsConfig
from keras_sspcab.export.serving.server.errors import ServingError, invalid
from keras_sspcab.export.serving.server.versions import (
    LoadedVersion,
    ModelSpec,
    Version,
    VersionState,
)

_log = logging.getLogger(__name__)


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


class Models:
    """Models and their versions, following what is in a folder.

    Of each model those versions are served that `versions` names or, in a
    repository, that `models.config` chooses; without either, the newest one
    that can be loaded. `labels` are those of all models, besides the ones of
    `models.config`.

    A new version is loaded beside the old one, which then takes no further
    requests, finishes those it has and is unloaded. All methods belong to one
    event loop.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        versions: tuple[int, ...] | None,
        labels: Mapping[str, int],
    ) -> None:
        self._folder = folder
        self._wanted = versions
        self._labels = labels
        self._models: dict[str, dict[int, Version]] = {}
        # Of those that are to be served.
        self._locations: dict[str, Location] = {}
        self._assigned: dict[str, dict[str, int]] = {}
        # One at a time: loading takes memory, and the models being served
        # need the processors.
        self._loader = ThreadPoolExecutor(1, "keras-sspcab-load")

    async def refresh(self) -> None:
        """Loads versions that are new on disk, and unloads old ones."""
        locations = await self._in_loader(_find_models, self._folder)
        for name, location in locations.items():
            self._locations[name] = location
            self._models.setdefault(name, {})
            await self._update(name, location)
            self._assign_labels(name, location.labels)
        if any(location.is_listed for location in locations.values()):
            for name in set(self._locations) - set(locations):
                del self._locations[name]
                self._keep(name, set())

    def get(self, spec: ModelSpec) -> Version:
        """Returns the version that a request is for, if it is available."""
        number = self._number(spec)
        versions = self._models.get(spec.name, {}).values()
        available = [
            version
            for version in versions
            if version.is_available and number in (None, version.number)
        ]
        if not available:
            choice = (
                f"Latest({spec.name})"
                if number is None
                else f"Specific({spec.name}, {number})"
            )
            raise ServingError(
                StatusCode.NOT_FOUND,
                f"Servable not found for request: {choice}",
            )
        return max(available, key=lambda version: version.number)

    @contextlib.contextmanager
    def use(self, spec: ModelSpec) -> Iterator[Version]:
        """Keeps a version loaded while a request needs it."""
        version = self.get(spec)
        version.in_flight += 1
        try:
            yield version
        finally:
            version.in_flight -= 1
            self._unload_if_idle(version)

    def status(self, spec: ModelSpec) -> list[Version]:
        """Returns the versions of a model in any state, newest first."""
        number = self._number(spec)
        versions = self._models.get(spec.name, {})
        chosen = [
            versions[key]
            for key in sorted(versions, reverse=True)
            if number in (None, key)
        ]
        if not chosen:
            missing = "any versions" if number is None else f"version {number}"
            raise ServingError(
                StatusCode.NOT_FOUND,
                f"Could not find {missing} of model {spec.name}",
            )
        return chosen

    def names(self) -> list[str]:
        """Returns the names of all models."""
        return sorted(self._models)

    def all_versions(self) -> list[Version]:
        """Returns the versions of all models."""
        return [
            version
            for name in self.names()
            for version in self._models[name].values()
        ]

    @property
    def missing(self) -> list[str]:
        """Names of models without an available version."""
        return [
            name
            for name in sorted(self._locations)
            if not any(v.is_available for v in self._models[name].values())
        ]

    def close(self) -> None:
        """Ends the thread that loads."""
        self._loader.shutdown(wait=False, cancel_futures=True)

    def _number(self, spec: ModelSpec) -> int | None:
        if spec.label is None:
            return spec.version
        labels = {**self._assigned.get(spec.name, {}), **self._labels}
        if spec.label not in labels:
            raise invalid(f"Unrecognized servable version label: {spec.label}")
        return labels[spec.label]

    async def _update(self, name: str, location: Location) -> None:
        versions = self._models[name]
        on_disk = await self._in_loader(location.versions)
        wanted = self._wanted
        if wanted is None and location.policy is not None:
            wanted = location.policy(list(on_disk))
        keep = set()
        for number in sorted(on_disk, reverse=True):
            if wanted is not None and number not in wanted:
                continue
            version = versions.setdefault(
                number, Version(name, number, on_disk[number])
            )
            if await self._ensure_loaded(version, location.is_listed):
                keep.add(number)
                if wanted is None:
                    break
        # Whatever happens to the files, a version is unloaded only when another
        # one is available.
        if keep:
            self._keep(name, keep)

    def _keep(self, name: str, numbers: set[int]) -> None:
        for version in self._models[name].values():
            if version.is_available and version.number not in numbers:
                version.state = VersionState.UNLOADING
                self._unload_if_idle(version)

    def _assign_labels(self, name: str, labels: Mapping[str, int]) -> None:
        """Moves labels to available versions, as TensorFlow Serving does.

        A label whose new version is not available stays where it was.
        """
        before = self._assigned.get(name, {})
        versions = self._models[name]
        assigned = {}
        for label, number in labels.items():
            version = versions.get(number)
            if version and version.is_available:
                assigned[label] = number
            elif label in before:
                assigned[label] = before[label]
        self._assigned[name] = assigned

    async def _ensure_loaded(self, version: Version, is_packaged: bool) -> bool:
        if version.state == VersionState.UNLOADING:
            return False
        fingerprint = await self._in_loader(_fingerprint, version.path)
        is_settled = version.is_available or bool(version.error)
        if is_settled and fingerprint == version.fingerprint:
            return version.is_available
        version.fingerprint = fingerprint
        # If it is available, it was exported anew under its number, or copied
        # file by file.
        if not version.is_available:
            version.state, version.error = VersionState.LOADING, ""
        try:
            version.loaded = await self._in_loader(
                LoadedVersion, version.path, is_packaged
            )
        except Exception as error:  # broken files can cause any
            reason = f"{error}"[:1000] or type(error).__name__
            if not version.is_available:
                version.state, version.error = VersionState.END, reason
            _log.error(
                "Version %d of %s cannot be loaded%s: %s",
                version.number,
                version.model,
                " again, its former files are served on"
                if version.is_available
                else "",
                reason,
            )
            return version.is_available
        if version.is_available:
            self._collect_garbage()
        version.state = VersionState.AVAILABLE
        _log.info("Serving version %d of %s", version.number, version.model)
        return True

    def _unload_if_idle(self, version: Version) -> None:
        is_unloading = version.state == VersionState.UNLOADING
        if is_unloading and version.in_flight == 0:
            version.loaded = None
            version.state = VersionState.END
            _log.info("Ended version %d of %s", version.number, version.model)
            self._collect_garbage()

    def _collect_garbage(self) -> None:
        # TensorFlow's functions refer to each other in circles.
        with contextlib.suppress(RuntimeError):  # closed already
            self._loader.submit(gc.collect)

    async def _in_loader(self, function: Callable[..., Any], *args: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._loader, function, *args)


def _find_models(folder: str | os.PathLike[str]) -> dict[str, Location]:
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


def _fingerprint(path: pathlib.Path) -> tuple[Any, ...]:
    files = []
    for file in sorted(path.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            files.append((str(file), status.st_size, status.st_mtime_ns))
    return tuple(files)
