"""The models that are served: versions come, are tried, and go."""

import asyncio
import contextlib
import gc
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from keras_sspcab.export.serving.server.errors import (
    Code,
    ServingError,
    invalid,
)
from keras_sspcab.export.serving.server.loading import LoadedVersion
from keras_sspcab.export.serving.server.locations import Location
from keras_sspcab.export.serving.server.versions import State, Target, Version

_log = logging.getLogger(__name__)


class Models:
    """Models and their versions, after what lies on disk.

    Of each model those versions are served that are asked for or, in a
    repository, that the policy in `models.config` chooses; without either, the
    newest one that can be loaded. A new one is loaded beside the old one, which
    then takes no further requests, finishes those it has and goes. All methods
    belong to one event loop.

    Args:
        find: Returns the models that are there, by name.
        versions: Numbers to serve of all models, whatever the policy.
        labels: Versions by label, of all models; before those of `find`.
    """

    def __init__(
        self,
        find: Callable[[], Mapping[str, Location]],
        versions: tuple[int, ...] | None = None,
        labels: Mapping[str, int] | None = None,
    ) -> None:
        self._find = find
        self._wanted = versions
        self._labels = dict(labels or {})
        self._models: dict[str, dict[int, Version]] = {}
        # Where they are, for as long as they are to be served.
        self._locations: dict[str, Location] = {}
        self._assigned: dict[str, dict[str, int]] = {}
        # One at a time: loading takes memory, and the models being served
        # need the processors.
        self._loader = ThreadPoolExecutor(1, "keras-sspcab-load")

    async def refresh(self) -> None:
        """Looks what is on disk, loads what is new and drops what is old."""
        found = await self._in_loader(self._find)
        for name, location in found.items():
            self._locations[name] = location
            self._models.setdefault(name, {})
            await self._update(name, location)
            self._assign(name, location.labels)
        if any(location.is_listed for location in found.values()):
            for name in set(self._locations) - set(found):
                del self._locations[name]
                self._keep(name, set())

    def get(self, target: Target) -> Version:
        """Returns the version a request is for.

        Raises:
            ServingError: If it is not available.
        """
        number = self._number(target)
        available = [
            version
            for version in self._models.get(target.name, {}).values()
            if version.state == State.AVAILABLE
            and number in (None, version.number)
        ]
        if not available:
            which = "Latest" if number is None else "Specific"
            rest = "" if number is None else f", {number}"
            raise ServingError(
                Code.NOT_FOUND,
                f"Servable not found for request: {which}({target.name}{rest})",
            )
        return max(available, key=lambda version: version.number)

    @contextlib.contextmanager
    def use(self, target: Target) -> Iterator[Version]:
        """Keeps a version while a request needs it."""
        version = self.get(target)
        version.in_flight += 1
        try:
            yield version
        finally:
            version.in_flight -= 1
            self._unload_if_idle(version)

    def status(self, target: Target) -> list[Version]:
        """Returns the versions of a model, whatever their state.

        Raises:
            ServingError: If there are none.
        """
        number = self._number(target)
        versions = self._models.get(target.name, {})
        if not versions:
            raise ServingError(
                Code.NOT_FOUND,
                f"Could not find any versions of model {target.name}",
            )
        if number is None:
            return [versions[key] for key in sorted(versions, reverse=True)]
        if number not in versions:
            raise ServingError(
                Code.NOT_FOUND,
                f"Could not find version {number} of model {target.name}",
            )
        return [versions[number]]

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
        """Names of models of which no version is available."""
        return [
            name
            for name in sorted(self._locations)
            if not any(
                version.state == State.AVAILABLE
                for version in self._models[name].values()
            )
        ]

    def close(self) -> None:
        """Ends the thread that loads."""
        self._loader.shutdown(wait=False, cancel_futures=True)

    def _number(self, target: Target) -> int | None:
        if target.label is None:
            return target.version
        labels = {**self._assigned.get(target.name, {}), **self._labels}
        if target.label not in labels:
            raise invalid(
                f"Unrecognized servable version label: {target.label}"
            )
        return labels[target.label]

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
        # Whatever has happened to the files: a model that is being served
        # goes only when another one has come.
        if keep:
            self._keep(name, keep)

    def _keep(self, name: str, numbers: set[int]) -> None:
        for version in self._models[name].values():
            if version.number not in numbers:
                self._retire(version)

    def _assign(self, name: str, labels: Mapping[str, int]) -> None:
        """Moves labels to versions that are there, as TensorFlow Serving does.

        One that is to move to another version stays where it was.
        """
        before = self._assigned.get(name, {})
        versions = self._models[name]
        assigned = {}
        for label, number in labels.items():
            version = versions.get(number)
            if version is not None and version.state == State.AVAILABLE:
                assigned[label] = number
            elif label in before:
                assigned[label] = before[label]
        self._assigned[name] = assigned

    async def _ensure_loaded(self, version: Version, is_packaged: bool) -> bool:
        if version.state == State.AVAILABLE:
            return True
        if version.state == State.UNLOADING:
            return False
        fingerprint = await self._in_loader(_fingerprint, version.path)
        if version.error and fingerprint == version.fingerprint:
            return False
        version.fingerprint = fingerprint
        version.state, version.error = State.LOADING, ""
        try:
            version.loaded = await self._in_loader(
                LoadedVersion, version.path, is_packaged
            )
        except Exception as error:  # any file can be broken in any way
            version.state, version.error = State.END, f"{error}"[:1000]
            version.error = version.error or type(error).__name__
            _log.error(
                "Version %d of %s cannot be loaded: %s",
                version.number,
                version.model,
                version.error,
            )
            return False
        version.state = State.AVAILABLE
        _log.info("Serving version %d of %s", version.number, version.model)
        return True

    def _retire(self, version: Version) -> None:
        if version.state == State.AVAILABLE:
            version.state = State.UNLOADING
            self._unload_if_idle(version)

    def _unload_if_idle(self, version: Version) -> None:
        if version.state == State.UNLOADING and version.in_flight == 0:
            version.loaded = None
            version.state = State.END
            _log.info("Ended version %d of %s", version.number, version.model)
            # TensorFlow's functions refer to each other in circles.
            with contextlib.suppress(RuntimeError):  # closed already
                self._loader.submit(gc.collect)

    async def _in_loader(self, function: Callable[..., Any], *args: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._loader, function, *args)


def _fingerprint(path: pathlib.Path) -> tuple[Any, ...]:
    files = []
    for file in sorted(path.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            files.append((str(file), status.st_size, status.st_mtime_ns))
    return tuple(files)
