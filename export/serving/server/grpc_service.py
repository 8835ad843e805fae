"""The services of TensorFlow Serving over gRPC."""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2,
    predict_pb2,
    prediction_service_pb2,
)

from keras_sspcab.export.serving.server.errors import (
    Code,
    ServingError,
    as_serving_error,
    invalid,
)
from keras_sspcab.export.serving.server.messages import (
    model_metadata,
    model_status,
    read_target,
    write_prediction,
)
from keras_sspcab.export.serving.server.metrics import Metrics
from keras_sspcab.export.serving.server.options import ServerOptions
from keras_sspcab.export.serving.server.predictor import Predictor
from keras_sspcab.export.serving.server.tensors import read_tensors

Method = Callable[[bytes, Any, list[str]], Awaitable[bytes]]

# Status messages travel in headers, which have a limit of their own.
_MAX_MESSAGE = 1500


class GrpcService:
    """PredictionService (Predict, metadata) and ModelService (status).

    Args:
        predictor: Answers the requests.
        options: Limits and the token.
        metrics: What is told of requests.
    """

    def __init__(
        self, predictor: Predictor, options: ServerOptions, metrics: Metrics
    ) -> None:
        self._predictor = predictor
        self._options = options
        self._metrics = metrics

    def handlers(self) -> list[Any]:
        """Returns what a server of gRPC is given."""
        methods: dict[str, Method] = {
            "Predict": self._predict,
            "GetModelMetadata": self._metadata,
            "GetModelStatus": self._status,
        }
        prediction = prediction_service_pb2.DESCRIPTOR.services_by_name[
            "PredictionService"
        ]
        model = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
        return [
            grpc.method_handlers_generic_handler(
                service.full_name,
                {
                    method.name: self._handler(
                        method.name, methods[method.name]
                    )
                    for method in service.methods
                    if method.name in methods
                },
            )
            for service in (prediction, model)
        ]

    def _handler(self, name: str, method: Method) -> Any:
        async def answer(_: Any, context: Any) -> bytes:
            start = time.perf_counter()
            # Filled by the method: which model the request was for.
            model: list[str] = []
            failure: ServingError | None = None
            try:
                self._authorize(context)
                return await self._read_and_answer(method, context, model)
            except asyncio.CancelledError:
                failure = ServingError(Code.CANCELLED, "The client has gone.")
                raise
            except Exception as error:
                failure = as_serving_error(error)
            finally:
                known = set(self._predictor.models.names())
                self._metrics.count_request(
                    "grpc",
                    name,
                    model[0] if model and model[0] in known else "",
                    failure.code if failure else None,
                    time.perf_counter() - start,
                )
            # Raises, and so ends the call.
            return await context.abort(
                grpc.StatusCode[failure.code.name],
                failure.message[:_MAX_MESSAGE],
            )

        # A method with one request looks the same on the wire. Declared as a
        # stream it is called before the request has come in whole, so that
        # the time for that can be limited.
        return grpc.stream_unary_rpc_method_handler(answer)

    async def _read_and_answer(
        self, method: Method, context: Any, model: list[str]
    ) -> bytes:
        try:
            data = await asyncio.wait_for(
                context.read(), self._options.read_timeout
            )
        except asyncio.TimeoutError as error:
            raise ServingError(
                Code.DEADLINE_EXCEEDED, "The request did not come in time."
            ) from error
        if not isinstance(data, bytes):
            raise invalid("There is no message in the request.")
        self._predictor.hold(len(data))
        try:
            return await method(data, context, model)
        finally:
            self._predictor.release(len(data))

    def _authorize(self, context: Any) -> None:
        if self._options.token is None:
            return
        metadata = dict(context.invocation_metadata() or ())
        check_token(metadata.get("authorization"), self._options.token)

    async def _predict(
        self, data: bytes, context: Any, model: list[str]
    ) -> bytes:
        request = await self._predictor.in_thread(
            _parse, predict_pb2.PredictRequest, data
        )
        target = read_target(request)
        model.append(target.name)
        limit = self._options.max_request_bytes
        prediction = await self._predictor.predict(
            target,
            request.model_spec.signature_name,
            lambda signature: read_tensors(signature, request.inputs, limit),
            request.output_filter,
            context.time_remaining(),
        )
        return await self._predictor.in_thread(write_prediction, prediction)

    async def _metadata(
        self, data: bytes, context: Any, model: list[str]
    ) -> bytes:
        request = _parse(get_model_metadata_pb2.GetModelMetadataRequest, data)
        target = read_target(request)
        model.append(target.name)
        if not request.metadata_field:
            raise invalid(
                "GetModelMetadataRequest must specify at least one "
                "metadata_field"
            )
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field} is not supported")
        models = self._predictor.models
        return model_metadata(models, target).SerializeToString()

    async def _status(
        self, data: bytes, context: Any, model: list[str]
    ) -> bytes:
        request = _parse(get_model_status_pb2.GetModelStatusRequest, data)
        target = read_target(request)
        model.append(target.name)
        models = self._predictor.models
        return model_status(models, target).SerializeToString()


def check_token(header: str | bytes | None, token: str) -> None:
    """Raises an error unless a header holds the token, in constant time."""
    received = header.encode() if isinstance(header, str) else header or b""
    if not hmac.compare_digest(received, f"Bearer {token}".encode()):
        raise ServingError(
            Code.UNAUTHENTICATED,
            "This server needs a token: send `authorization: Bearer TOKEN`.",
        )


def create_grpc_server(
    service: GrpcService, options: ServerOptions
) -> tuple[Any, int]:
    """Returns a server that listens but does not answer yet, and its port.

    Raises:
        OSError: If the port is taken.
        ValueError: If certificate or key are none.
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
        # The code that servers of gRPC in C++ give for this.
        raise ServingError(
            Code.INTERNAL, f"The request is no {message.DESCRIPTOR.full_name}."
        ) from error
