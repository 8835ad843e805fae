"""Versions of models, loaded as TensorFlow Serving loads them."""

import dataclasses
import enum
import pathlib
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from grpc import StatusCode

from keras_sspcab.export.audit import (
    require_finite,
    require_finite_constants,
)
from keras_sspcab.export.manifest import MANIFEST_NAME, verify_version
from keras_sspcab.export.reports import calibration_in, read_report
from keras_sspcab.export.serving.server.drift import DriftWatch
from keras_sspcab.export.serving.server.errors import ServingError
from keras_sspcab.export.serving.server.messages import read_tensors
from keras_sspcab.export.serving.server.signature import Signature
from keras_sspcab.export.serving.warmup import WARMUP_FILE, read_meta_graph
from keras_sspcab.optional_inputs import OPTIONS_SUFFIX
from keras_sspcab.scoring import Calibration

# As in TensorFlow Serving.
_MAX_WARMUP_RECORDS = 1000


class VersionState(enum.IntEnum):
    """States of a version, with the numbers of `ModelVersionStatus`."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class LoadedVersion:
    """A SavedModel in memory, checked and warmed up.

    Checksums are verified if there are any; a packaged version must have some.

    Attributes:
        definitions: `SignatureDef` by name, as in the file.
        signatures: Those that can be run.
        report: `parity.json` of the export, or an empty dict.
        calibration: That of the report; one without thresholds if it has none.
        drift: Watches what it is asked.
    """

    def __init__(self, path: pathlib.Path, is_packaged: bool = False) -> None:
        if is_packaged or (path / MANIFEST_NAME).is_file():
            verify_version(path)
        graph = read_meta_graph(path)
        self.definitions = dict(graph.signature_def)
        require_finite_constants(graph.graph_def)
        del graph  # with all the weights in it
        # The signatures need it for as long as they run.
        self._loaded = tf.saved_model.load(str(path))
        for function in self._loaded.signatures.values():
            for variable in function.variables:
                if variable.dtype.is_floating:
                    require_finite(variable.name, variable.numpy())
        self.report = read_report(path)
        self.calibration = calibration_in(self.report) or Calibration()
        self.drift = DriftWatch(self.report, self.calibration.reference)
        is_compiled = bool(self.report.get("jit_compile"))
        products = tuple(part.name for part in self.calibration.products)
        self.signatures = {
            name: Signature(
                name,
                _specs(self.definitions[name].inputs),
                _specs(self.definitions[name].outputs),
                function,
                is_compiled,
                self._optional_inputs(name),
                products,
                _read_highest(self.report),
            )
            for name, function in self._loaded.signatures.items()
        }
        self._warm_up(path / WARMUP_FILE)

    def signature(self, name: str) -> Signature:
        """Returns a signature by its name, which is empty for the default."""
        name = name or "serving_default"
        if name not in self.signatures:
            raise ServingError(
                StatusCode.FAILED_PRECONDITION,
                f'Serving signature key "{name}" not found.',
            )
        return self.signatures[name]

    def _optional_inputs(self, name: str) -> frozenset[str]:
        """Names of the inputs that a signature may be asked without."""
        plain = name.removesuffix(OPTIONS_SUFFIX)
        if plain == name or plain not in self.definitions:
            return frozenset()
        inputs, known = self.definitions[name].inputs, self.definitions[plain]
        return frozenset(inputs) - set(known.inputs)

    def _warm_up(self, file: pathlib.Path) -> None:
        if not file.is_file():
            return
        from tensorflow_serving.apis import prediction_log_pb2

        records = tf.data.TFRecordDataset(str(file)).take(_MAX_WARMUP_RECORDS)
        for record in records.as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            request = log.predict_log.request
            signature = self.signature(request.model_spec.signature_name)
            limit = len(record) * 1024
            signature.run(read_tensors(signature, request.inputs, limit, limit))


def _specs(infos: Mapping[str, Any]) -> dict[str, tf.TensorSpec]:
    """Returns the specs of the inputs or outputs of a `SignatureDef`."""
    return {
        name: tf.TensorSpec(
            tf.TensorShape(info.tensor_shape), tf.as_dtype(info.dtype), name
        )
        for name, info in infos.items()
    }


def _read_highest(report: dict[str, Any]) -> dict[str, float]:
    """Returns the highest value of the inputs that have one, by name."""
    try:
        ranges = {k: v["value_range"] for k, v in report["inputs"].items()}
        return {k: float(limits[1]) for k, limits in ranges.items() if limits}
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        return {}  # of an export by others


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The model that a request names, and its version or label if it does."""

    name: str
    version: int | None = None
    label: str | None = None


@dataclasses.dataclass(eq=False)
class Version:
    """A version of a model, in any state.

    Attributes:
        error: Why it could not be loaded; empty otherwise.
        loaded: What runs; None unless it can.
        in_flight: Requests that are using it.
        fingerprint: Its files when it was last loaded.
    """

    model: str
    number: int
    path: pathlib.Path
    state: VersionState = VersionState.START
    error: str = ""
    loaded: LoadedVersion | None = None
    in_flight: int = 0
    fingerprint: Any = None

    @property
    def is_available(self) -> bool:
        """Whether it takes requests."""
        return self.state == VersionState.AVAILABLE
