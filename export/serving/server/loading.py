"""Loads versions of models, as TensorFlow Serving does it."""

import json
import pathlib
from typing import Any

import tensorflow as tf

from keras_sspcab.export.serving.graph import read_meta_graph
from keras_sspcab.export.serving.manifest import MANIFEST_NAME, verify_version
from keras_sspcab.export.serving.server.errors import Code, ServingError
from keras_sspcab.export.serving.server.signature import Signature
from keras_sspcab.export.serving.server.tensors import read_tensors
from keras_sspcab.export.serving.warmup import WARMUP_FILE

DEFAULT_SIGNATURE = "serving_default"

# As in TensorFlow Serving.
_MAX_WARMUP_RECORDS = 1000


class LoadedVersion:
    """A SavedModel in memory, checked, warm and ready.

    Args:
        path: Its folder. Where it lists checksums, they must hold.
        is_packaged: Whether it must list checksums.

    Attributes:
        definitions: `SignatureDef` by name, as in the file.
        signatures: Those that can be run.
        report: `parity.json` of the export, or an empty dict.
    """

    def __init__(self, path: pathlib.Path, is_packaged: bool = False) -> None:
        if is_packaged or (path / MANIFEST_NAME).is_file():
            verify_version(path)
        graph = read_meta_graph(path)
        self.definitions = dict(graph.signature_def)
        del graph  # with all the weights in it
        # Kept: what the signatures refer to ends with it.
        self._loaded = tf.saved_model.load(str(path))
        self.report = _read_report(path)
        is_compiled = bool(self.report.get("jit_compile"))
        self.signatures = {
            name: Signature.of_definition(
                name, self.definitions[name], function, is_compiled
            )
            for name, function in self._loaded.signatures.items()
        }
        self._warm_up(path)

    def signature(self, name: str, missing: Code) -> Signature:
        """Returns a signature.

        Args:
            name: Its name; empty for the default.
            missing: Code of the error if there is none; that of TensorFlow
                Serving depends on the protocol.
        """
        name = name or DEFAULT_SIGNATURE
        if name not in self.signatures:
            raise ServingError(
                missing, f'Serving signature key "{name}" not found.'
            )
        return self.signatures[name]

    def _warm_up(self, path: pathlib.Path) -> None:
        file = path / WARMUP_FILE
        if not file.is_file():
            return
        from tensorflow_serving.apis import prediction_log_pb2

        records = tf.data.TFRecordDataset(str(file)).take(_MAX_WARMUP_RECORDS)
        for record in records.as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(record)
            request = log.predict_log.request
            signature = self.signature(
                request.model_spec.signature_name, Code.FAILED_PRECONDITION
            )
            limit = len(record) * 1024
            signature.run(read_tensors(signature, request.inputs, limit))


def _read_report(path: pathlib.Path) -> dict[str, Any]:
    try:
        report = json.loads((path / "parity.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}
