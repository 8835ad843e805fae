"""What both protocols have in common: calls, and how answers are read."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_sspcab.export.serving.client.results import (
    ModelMetadata,
    SignatureInfo,
    VersionStatus,
)


@dataclasses.dataclass(frozen=True)
class Target:
    """Which model is asked.

    Attributes:
        model: Its name.
        version: Its version; None for what the server chooses.
        label: The label of its version, likewise.
    """

    model: str
    version: int | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if not self.model or not isinstance(self.model, str):
            raise ValueError(
                "`model` must be the name of a model on the server. "
                f"Received: model={self.model!r}"
            )
        if self.version is not None and self.label is not None:
            raise ValueError(
                "Give a version or a label, not both. Received: "
                f"version={self.version!r}, label={self.label!r}"
            )


@dataclasses.dataclass(frozen=True)
class Call:
    """A request, ready to be sent.

    Attributes:
        path: Method of gRPC, or path of a URL.
        body: The message; None for a GET of HTTP.
    """

    path: str
    body: bytes | None = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Answer:
    """The answer to a request for predictions.

    Attributes:
        outputs: Arrays with the batch in front, by name.
        version: The version that has answered, if it says so.
    """

    outputs: Mapping[str, np.ndarray]
    version: int | None


class Wire(abc.ABC):
    """The messages of a protocol. It sends nothing itself."""

    def __init__(self, target: Target) -> None:
        self.target = target

    @abc.abstractmethod
    def status(self) -> Call:
        """Returns the question for the states of versions."""

    @abc.abstractmethod
    def read_status(self, reply: bytes) -> tuple[VersionStatus, ...]:
        """Reads the answer to it."""

    @abc.abstractmethod
    def metadata(self) -> Call:
        """Returns the question for the signatures."""

    @abc.abstractmethod
    def read_metadata(self, reply: bytes) -> ModelMetadata:
        """Reads the answer to it."""

    @abc.abstractmethod
    def predict(self, signature: str, inputs: Mapping[str, Any]) -> Call:
        """Returns a request for predictions.

        Args:
            signature: Name of the signature.
            inputs: By name, an array, or a list of bytes for strings.
        """

    @abc.abstractmethod
    def read_answer(self, reply: bytes, signature: SignatureInfo) -> Answer:
        """Reads the answer to it."""

    @abc.abstractmethod
    def size(self, num_values: int, itemsize: int) -> int:
        """Bytes that so many values take on their way, about.

        Args:
            num_values: How many.
            itemsize: Bytes of each in memory; strings have one a byte.
        """
