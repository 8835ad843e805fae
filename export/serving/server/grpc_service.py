"""The services of TensorFlow Serving over gRPC."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc import StatusCode
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from keras_sspcab.export.serving.server.errors import (
    ServingError,
    forget_origin,
    invalid,
    too_large,
)
from keras_sspcab.export.serving.server.messages import (
    MAX_FIELDS,
    model_metadata,
    model_status,
    read_tensors,
    scan_request,
    write_prediction,
)
from keras_sspcab.export.serving.server.options import ServerOptions
from keras_sspcab.export.serving.server.predictor import Predictor, Question
from keras_sspcab.export.serving.server.versions import LoadedVersion, ModelSpec

# A request that has no more is read at once.
_FEW_FIELDS = 500

# Bytes of a request for the status or metadata of a model.
_MAX_QUESTION = 1 << 16


class GrpcService:
    """PredictionService (Predict, metadata) and ModelService (status)."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def handlers(self) -> list[Any]:
        """Returns the handlers to add to a gRPC server."""
        services: dict[str, dict[str, Callable[..., Any]]] = {
            "PredictionService": {
                "Predict": self._predict,
                "GetModelMetadata": self._metadata,
            },
            "ModelService": {"GetModelStatus": self._status},
        }
        return [
            grpc.method_handlers_generic_handler(
                f"tensorflow.serving.{service}",
                {
                    name: self._handler(name, method)
                    for name, method in methods.items()
                },
            )
            for service, methods in services.items()
        ]

    def _handler(
        self,
        name: str,
        method: Callable[[bytes, Any, Any], Awaitable[bytes]],
    ) -> Any:
        predictor = self._predictor

        async def answer(_: Any, context: Any) -> bytes:
            try:
                with (
                    predictor.metrics.count_request(
                        "grpc", predictor.models.names
                    ) as labels,
                    predictor.limits.holding() as hold,
                ):
                    labels.method = name
                    metadata = dict(context.invocation_metadata() or ())
                    predictor.authorize(metadata.get("authorization"))
                    data = await predictor.limits.receive(context.read())
                    if not isinstance(data, bytes):
                        raise invalid("There is no message in the request.")
                    hold(len(data))
                    return await method(data, labels, context)
            except ServingError as error:
                forget_origin(error)
                code, message = error.code, error.message
            # Raises, and so ends the call.
            return await context.abort(code, message)

        # A method with one request looks the same on the wire. Declared as a
        # stream, it is called before the request has arrived completely, so
        # that the time for that can be limited.
        return grpc.stream_unary_rpc_method_handler(answer)

    async def _predict(self, data: bytes, labels: Any, context: Any) -> bytes:
        return await self._predictor.limits.answer(
            self._answer(data, labels), context.time_remaining()
        )

    async def _answer(self, data: bytes, labels: Any) -> bytes:
        predictor, options = self._predictor, self._predictor.options
        memory, head = await predictor.work(
            lambda is_quick: scan_request(
                data, _FEW_FIELDS if is_quick else MAX_FIELDS
            )
        )
        spec = _read_spec(_parse(predict_pb2.PredictRequest, head), labels)

        def read(version: LoadedVersion, is_quick: bool) -> Question:
            request = _parse(predict_pb2.PredictRequest, data)
            signature = version.signature(request.model_spec.signature_name)
            # Tensors may be larger than what is sent: the last value stands
            # for the rest.
            inputs = read_tensors(
                signature,
                request.inputs,
                memory if is_quick else options.max_request_bytes,
                options.max_rows,
            )
            return Question(signature, inputs, list(request.output_filter))

        return await predictor.predict(
            spec, read, write_prediction, memory, options.max_request_bytes
        )

    async def _metadata(self, data: bytes, labels: Any, _: Any) -> bytes:
        request = _parse(
            get_model_metadata_pb2.GetModelMetadataRequest, data, _MAX_QUESTION
        )
        spec = _read_spec(request, labels)
        if not request.metadata_field:
            raise invalid(
                "GetModelMetadataRequest must specify at least one "
                "metadata_field"
            )
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field} is not supported")
        version = self._predictor.models.get(spec)
        return model_metadata(version).SerializeToString()

    async def _status(self, data: bytes, labels: Any, _: Any) -> bytes:
        request = _parse(
            get_model_status_pb2.GetModelStatusRequest, data, _MAX_QUESTION
        )
        versions = self._predictor.models.status(_read_spec(request, labels))
        return model_status(versions).SerializeToString()


def create_grpc_server(
    service: GrpcService, options: ServerOptions
) -> tuple[Any, int]:
    """Returns a server that listens but does not answer yet, and its port."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", options.max_request_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", options.max_connections),
            # A port that is taken is an error, not shared.
            ("grpc.so_reuseport", 0),
            ("grpc.server_handshake_timeout_ms", 10_000),
        ],
        maximum_concurrent_rpcs=options.max_connections,
    )
    server.add_generic_rpc_handlers(service.handlers())
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"{host}:{options.grpc_port}"
    tls = options.read_tls()
    try:
        if tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(
                address, grpc.ssl_server_credentials([tls])
            )
    except RuntimeError as error:
        raise OSError(f"gRPC cannot listen at {address}: {error}") from error
    if port == 0:
        raise OSError(f"gRPC cannot listen at {address}")
    return server, port


def _parse(message: Any, data: bytes, max_bytes: int | None = None) -> Any:
    if max_bytes is not None and len(data) > max_bytes:
        raise too_large(f"This request may have {max_bytes} bytes.")
    try:
        return message.FromString(data)
    except DecodeError as error:
        # The code that gRPC servers in C++ give for this.
        raise ServingError(
            StatusCode.INTERNAL,
            f"The request is no {message.DESCRIPTOR.full_name}.",
        ) from error


def _read_spec(request: Any, labels: Any) -> ModelSpec:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = request.model_spec
    labels.model = spec.name
    choice = spec.WhichOneof("version_choice")
    return ModelSpec(
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )
