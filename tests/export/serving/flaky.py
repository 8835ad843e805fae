"""Servers that fail as they are told, and count the attempts."""

import concurrent.futures
import contextlib

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from tests.export.serving.flaky_rest import Plan, rest_server, scores_of

__all__ = ["Plan", "fake_server"]


class _Messages:
    @staticmethod
    def metadata(plan):
        signatures = get_model_metadata_pb2.SignatureDefMap()
        definition = signatures.signature_def["serving_default"]
        _tensor(definition.inputs["image"], tf.float32, plan.size)
        _tensor(definition.outputs["anomaly_score"], tf.float32, (-1,))
        _tensor(definition.outputs["is_anomalous"], tf.bool, (-1,))
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = "fake"
        response.model_spec.version.value = 1
        response.metadata["signature_def"].Pack(signatures)
        return response

    @staticmethod
    def status(plan):
        response = get_model_status_pb2.GetModelStatusResponse()
        entry = response.model_version_status.add(version=1)
        entry.state = entry.State.Value(plan.state)
        return response

    @staticmethod
    def prediction(scores):
        response = predict_pb2.PredictResponse()
        response.model_spec.version.value = 1
        response.outputs["anomaly_score"].CopyFrom(tf.make_tensor_proto(scores))
        response.outputs["is_anomalous"].CopyFrom(
            tf.make_tensor_proto(scores > 1)
        )
        return response


def _tensor(info, dtype, sizes):
    info.dtype = dtype.as_datatype_enum
    info.tensor_shape.CopyFrom(
        tf.TensorShape([None if s < 0 else s for s in sizes]).as_proto()
    )


@contextlib.contextmanager
def grpc_server(plan, port=0):
    def predict(data, context):
        request = predict_pb2.PredictRequest.FromString(data)
        images = tf.make_ndarray(request.inputs["image"])
        plan.rows.append(len(images))
        plan.tokens.append(
            dict(context.invocation_metadata()).get("authorization")
        )
        failure = plan.next_failure()
        if failure is not None:
            context.abort(grpc.StatusCode[failure], "as planned")
        return _Messages.prediction(scores_of(images)).SerializeToString()

    def handler(function):
        return grpc.unary_unary_rpc_method_handler(function)

    def answer(message):
        return handler(lambda data, context: message(plan).SerializeToString())

    pool = concurrent.futures.ThreadPoolExecutor(4)
    server = grpc.server(pool)
    prefix = "tensorflow.serving."
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                f"{prefix}PredictionService",
                {
                    "Predict": handler(predict),
                    "GetModelMetadata": answer(_Messages.metadata),
                },
            ),
            grpc.method_handlers_generic_handler(
                f"{prefix}ModelService",
                {"GetModelStatus": answer(_Messages.status)},
            ),
        )
    )
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
        pool.shutdown()


def fake_server(kind, plan, port=0):
    make = grpc_server if kind == "grpc" else rest_server
    return make(plan, port)
