"""Servers that fail as they are told, and count the attempts."""

import concurrent.futures
import contextlib

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.export.serving.flaky_rest import Plan, rest_server, scores_of

__all__ = ["Plan", "fake_server"]


class _Services(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    def __init__(self, plan):
        self._plan = plan

    def GetModelMetadata(self, request, context):  # noqa: N802
        signatures = get_model_metadata_pb2.SignatureDefMap()
        definition = signatures.signature_def["serving_default"]
        _describe(definition.inputs["image"], tf.float32, self._plan.size)
        _describe(definition.outputs["anomaly_score"], tf.float32, (-1,))
        _describe(definition.outputs["is_anomalous"], tf.bool, (-1,))
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = "fake"
        response.model_spec.version.value = 1
        response.metadata["signature_def"].Pack(signatures)
        return response

    def GetModelStatus(self, request, context):  # noqa: N802
        response = get_model_status_pb2.GetModelStatusResponse()
        entry = response.model_version_status.add(version=1)
        entry.state = entry.State.Value(self._plan.state)
        return response

    def Predict(self, request, context):  # noqa: N802
        images = tf.make_ndarray(request.inputs["image"])
        metadata = dict(context.invocation_metadata())
        self._plan.rows.append(len(images))
        self._plan.tokens.append(metadata.get("authorization"))
        failure = self._plan.next_failure()
        if failure is not None:
            context.abort(grpc.StatusCode[failure], "as planned")
        scores = scores_of(images)
        response = predict_pb2.PredictResponse()
        response.model_spec.version.value = 1
        for name, value in (
            ("anomaly_score", scores),
            ("is_anomalous", scores > 1),
        ):
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


def _describe(info, dtype, sizes):
    info.dtype = dtype.as_datatype_enum
    for size in sizes:
        info.tensor_shape.dim.add().size = size


@contextlib.contextmanager
def grpc_server(plan, port=0):
    services = _Services(plan)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            services, server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            services, server
        )
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(0).wait()


def fake_server(kind, plan, port=0):
    make = grpc_server if kind == "grpc" else rest_server
    return make(plan, port)
