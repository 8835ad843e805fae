"""A version of a model, and how requests name it."""

import dataclasses
import enum
import pathlib
from typing import Any

from keras_sspcab.export.serving.server.loading import LoadedVersion


class State(enum.IntEnum):
    """States of a version, with the numbers of `ModelVersionStatus`."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclasses.dataclass(frozen=True)
class Target:
    """Which model a request is for.

    Attributes:
        name: Its name.
        version: Its version, or None.
        label: The label of its version, or None.
    """

    name: str
    version: int | None = None
    label: str | None = None


@dataclasses.dataclass(eq=False)
class Version:
    """A version of a model, in whatever state.

    Attributes:
        model: Name of the model.
        number: Its number.
        path: Its folder.
        state: What it is doing.
        error: Why it could not be loaded; empty otherwise.
        loaded: What runs; None unless it can.
        in_flight: Requests that are using it.
        fingerprint: State of its files when it was loaded last.
    """

    model: str
    number: int
    path: pathlib.Path
    state: State = State.START
    error: str = ""
    loaded: LoadedVersion | None = None
    in_flight: int = 0
    fingerprint: Any = None
