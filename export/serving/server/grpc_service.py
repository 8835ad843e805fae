"""The services of TensorFlow Serving over gRPC."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc import StatusCode
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2,
    predict_pb2,
    prediction_service_pb2,
)

from keras_sspcab.export.serving.server.errors import (
    ServingError,
    invalid,
)
from keras_sspcab.export.serving.server.messages import (
    model_metadata,
    model_status,
    read_tensors,
    write_prediction,
)
from keras_sspcab.export.serving.server.metrics import Metrics
from keras_sspcab.export.serving.server.options import ServerOptions
from keras_sspcab.export.serving.server.predictor import Predictor
from keras_sspcab.export.serving.server.versions import ModelSpec

# Status messages travel in headers, which have a limit of their own.
_MAX_MESSAGE = 1500


class GrpcService:
    """PredictionService (Predict, metadata) and ModelService (status).

    Args:
        predictor: Answers the requests.
        options: Limits and the token.
        metrics: Counts requests.
    """

    def __init__(
        self, predictor: Predictor, options: ServerOptions, metrics: Metrics
    ) -> None:
        self._predictor = predictor
        self._options = options
        self._metrics = metrics

    def handlers(self) -> list[Any]:
        """Returns the handlers to add to a gRPC server."""
        methods = {
            "Predict": (predict_pb2.PredictRequest, self._predict),
            "GetModelMetadata": (
                get_model_metadata_pb2.GetModelMetadataRequest,
                self._metadata,
            ),
            "GetModelStatus": (
                get_model_status_pb2.GetModelStatusRequest,
                self._status,
            ),
        }
        services = (
            prediction_service_pb2.DESCRIPTOR.services_by_name[
                "PredictionService"
            ],
            model_service_pb2.DESCRIPTOR.services_by_name["ModelService"],
        )
        return [
            grpc.method_handlers_generic_handler(
                service.full_name,
                {
                    method.name: self._handler(
                        method.name, *methods[method.name]
                    )
                    for method in service.methods
                    if method.name in methods
                },
            )
            for service in services
        ]

    def _handler(
        self,
        name: str,
        request_type: Any,
        method: Callable[[Any, ModelSpec, Any], Awaitable[bytes]],
    ) -> Any:
        models = self._predictor.models

        async def answer(_: Any, context: Any) -> bytes:
            try:
                with self._metrics.count_request(
                    "grpc", models.names
                ) as labels:
                    labels.method = name
                    self._authorize(context)
                    data = await self._read(context)
                    with self._predictor.holding(len(data)):
                        request = await self._predictor.in_thread(
                            _parse, request_type, data
                        )
                        spec = _read_spec(request)
                        labels.model = spec.name
                        return await method(request, spec, context)
            except ServingError as error:
                failure = error
            # Raises, and so ends the call.
            return await context.abort(
                failure.code, failure.message[:_MAX_MESSAGE]
            )

        # A method with one request looks the same on the wire. Declared as a
        # stream, it is called before the request has arrived completely, so
        # that the time for that can be limited.
        return grpc.stream_unary_rpc_method_handler(answer)

    async def _read(self, context: Any) -> bytes:
        try:
            data = await asyncio.wait_for(
                context.read(), self._options.read_timeout
            )
        except asyncio.TimeoutError as error:
            raise ServingError(
                StatusCode.DEADLINE_EXCEEDED,
                "The request did not come in time.",
            ) from error
        if not isinstance(data, bytes):
            raise invalid("There is no message in the request.")
        return data

    def _authorize(self, context: Any) -> None:
        if self._options.token is not None:
            metadata = dict(context.invocation_metadata() or ())
            check_token(metadata.get("authorization"), self._options.token)

    async def _predict(
        self, request: Any, spec: ModelSpec, context: Any
    ) -> bytes:
        limit = self._options.max_request_bytes
        prediction = await self._predictor.predict(
            spec,
            request.model_spec.signature_name,
            lambda signature: read_tensors(signature, request.inputs, limit),
            request.output_filter,
            context.time_remaining(),
        )
        return await self._predictor.in_thread(write_prediction, prediction)

    async def _metadata(self, request: Any, spec: ModelSpec, _: Any) -> bytes:
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

    async def _status(self, _: Any, spec: ModelSpec, __: Any) -> bytes:
        versions = self._predictor.models.status(spec)
        return model_status(versions).SerializeToString()


def check_token(header: str | bytes | None, token: str) -> None:
    """Raises an error unless a header holds the token, in constant time."""
    received = header.encode() if isinstance(header, str) else header or b""
    if not hmac.compare_digest(received, f"Bearer {token}".encode()):
        raise ServingError(
            StatusCode.UNAUTHENTICATED,
            "This server needs a token: send `authorization: Bearer TOKEN`.",
        )


def create_grpc_server(
    service: GrpcService, options: ServerOptions
) -> tuple[Any, int]:
    """Returns a server that listens but does not answer yet, and its port.

    Raises:
        OSError: If the port is taken.
        ValueError: If certificate or key are malformed.
    """
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


def _parse(message: Any, data: bytes) -> Any:
    try:
        return message.FromString(data)
    except DecodeError as error:
        # The code that gRPC servers in C++ give for this.
        raise ServingError(
            StatusCode.INTERNAL,
            f"The request is no {message.DESCRIPTOR.full_name}.",
        ) from error


def _read_spec(request: Any) -> ModelSpec:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = request.model_spec
    choice = spec.WhichOneof("version_choice")
    return ModelSpec(
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )
