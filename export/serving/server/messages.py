"""The messages of TensorFlow Serving's protocol, read and written."""

import inspect
from typing import Any

from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from keras_sspcab.export.serving.server.errors import Code, invalid
from keras_sspcab.export.serving.server.models import Models
from keras_sspcab.export.serving.server.predictor import Prediction
from keras_sspcab.export.serving.server.tensors import write_tensor
from keras_sspcab.export.serving.server.versions import Target

# Its name differs between versions of protobuf.
_PRINT_DEFAULTS = next(
    name
    for name in (
        "always_print_fields_with_no_presence",
        "including_default_value_fields",
    )
    if name in inspect.signature(MessageToDict).parameters
)


def read_target(request: Any) -> Target:
    """Returns which model a request is for.

    Raises:
        ServingError: If it does not say so.
    """
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = request.model_spec
    choice = spec.WhichOneof("version_choice")
    return Target(
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )


def write_prediction(prediction: Prediction) -> bytes:
    """Returns a `PredictResponse`."""
    response = predict_pb2.PredictResponse()
    response.model_spec.name = prediction.model
    response.model_spec.version.value = prediction.version
    response.model_spec.signature_name = prediction.signature
    for name, array in prediction.outputs.items():
        response.outputs[name].CopyFrom(write_tensor(array))
    return response.SerializeToString()


def model_status(models: Models, target: Target) -> Any:
    """Returns a `GetModelStatusResponse`."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in models.status(target):
        status = response.model_version_status.add()
        status.version = version.number
        status.state = int(version.state)
        if version.error:
            status.status.error_code = Code.UNKNOWN.number
            status.status.error_message = version.error
        else:
            status.status.SetInParent()
    return response


def model_metadata(models: Models, target: Target) -> Any:
    """Returns a `GetModelMetadataResponse` with all signatures."""
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    version = models.get(target)
    response.model_spec.name = version.model
    response.model_spec.version.value = version.number
    response.metadata["signature_def"].Pack(_signatures(version))
    return response


def status_json(models: Models, target: Target) -> dict[str, Any]:
    """Returns the states of a model as REST gives them."""
    return _to_dict(model_status(models, target))


def metadata_json(models: Models, target: Target) -> dict[str, Any]:
    """Returns the signatures of a model as REST gives them."""
    response = model_metadata(models, target)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    return {
        "model_spec": _to_dict(response.model_spec),
        "metadata": {"signature_def": _to_dict(signatures)},
    }


def _signatures(version: Any) -> Any:
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in version.loaded.definitions.items():
        signatures.signature_def[name].CopyFrom(definition)
    return signatures


def _to_dict(message: Any) -> dict[str, Any]:
    return MessageToDict(
        message, preserving_proto_field_name=True, **{_PRINT_DEFAULTS: True}
    )
