"""The REST API of TensorFlow Serving, health, metrics and the web page."""

import re
import zlib
from collections.abc import Callable
from urllib.parse import unquote

from grpc import StatusCode
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from keras_sspcab.export.serving.server import page
from keras_sspcab.export.serving.server.errors import (
    ServingError,
    as_serving_error,
    forget_origin,
    invalid,
    too_large,
)
from keras_sspcab.export.serving.server.json_tensors import (
    JsonRequest,
    memory_needed,
    write_json,
)
from keras_sspcab.export.serving.server.messages import (
    metadata_json,
    status_json,
)
from keras_sspcab.export.serving.server.predictor import (
    Prediction,
    Predictor,
    Question,
)
from keras_sspcab.export.serving.server.versions import LoadedVersion, ModelSpec

_PATH = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?"
    r"(/metadata|:classify|:regress|:predict)?",
    re.I | re.A,
)
_METHODS = {
    ("POST", ":predict"): "Predict",
    ("POST", ":classify"): "Classify",
    ("POST", ":regress"): "Regress",
    ("GET", "/metadata"): "GetModelMetadata",
    ("GET", ""): "GetModelStatus",
}
_HTTP_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class RestApi:
    """Answers requests over HTTP; `is_ready` says whether the server can."""

    def __init__(
        self, predictor: Predictor, is_ready: Callable[[], bool]
    ) -> None:
        self._predictor = predictor
        self._is_ready = is_ready

    def application(self) -> Starlette:
        """Returns the application for an ASGI server."""
        return Starlette(
            routes=[
                Route("/healthz", self._health),
                Route("/readyz", self._readiness),
                Route("/metrics", self._show_metrics),
                # Where TensorFlow Serving has them.
                Route("/monitoring/prometheus/metrics", self._show_metrics),
                *(Route(path, page.respond) for path in page.FILES),
                Route("/page.json", self._page_data),
                Route("/v1/{rest:path}", self._api, methods=_HTTP_METHODS),
            ],
            exception_handlers={ServingError: _respond_error},
        )

    async def _health(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readiness(self, _: Request) -> Response:
        if self._is_ready():
            return PlainTextResponse("ready\n")
        missing = ", ".join(self._predictor.models.missing)
        reason = f"no version of {missing}" if missing else "stopping"
        return PlainTextResponse(f"not ready: {reason}\n", 503)

    async def _show_metrics(self, request: Request) -> Response:
        self._authorize(request)
        metrics = self._predictor.metrics
        for version in self._predictor.models.all_versions():
            metrics.set_version(
                version.model,
                version.number,
                int(version.state),
                bool(version.error),
            )
        headers = {"content-type": metrics.content_type}
        return Response(metrics.text(), headers=headers)

    async def _page_data(self, request: Request) -> Response:
        self._authorize(request)
        models = self._predictor.models
        data = await self._predictor.in_thread(page.describe, models)
        return JSONResponse(data)

    async def _api(self, request: Request) -> Response:
        models = self._predictor.models
        with self._predictor.metrics.count_request(
            "rest", models.names
        ) as labels:
            self._authorize(request)
            labels.method, spec = _parse_path(request)
            labels.model = spec.name
            if labels.method == "GetModelStatus":
                return JSONResponse(status_json(models.status(spec)))
            if labels.method == "GetModelMetadata":
                return JSONResponse(metadata_json(models.get(spec)))
            if labels.method == "Predict":
                return await self._predict(request, spec)
            raise ServingError(
                StatusCode.UNIMPLEMENTED,
                f"This server has no {labels.method}.",
            )

    async def _predict(self, request: Request, spec: ModelSpec) -> Response:
        limits = self._predictor.limits
        body = _Body(self._predictor)
        try:
            content = await limits.receive(body.read(request))
            answer = await limits.answer(self._answer(body, content, spec))
        except ClientDisconnect as error:
            raise ServingError(
                StatusCode.CANCELLED, "The client has gone."
            ) from error
        finally:
            body.release()
        return Response(answer, media_type="application/json")

    async def _answer(
        self, body: "_Body", content: bytes, spec: ModelSpec
    ) -> bytes:
        predictor = self._predictor
        if body.is_compressed:
            limit = predictor.options.max_request_bytes
            content = await predictor.in_thread(
                _unpack, content, limit, memory=limit
            )
            body.hold(len(content))
        memory = await predictor.in_thread(memory_needed, content)
        is_row = False

        def read(version: LoadedVersion) -> Question:
            nonlocal is_row
            request = JsonRequest.parse(content)
            is_row = request.is_row
            signature = version.signature(request.signature)
            max_rows = predictor.options.max_rows
            return Question(signature, request.arrays(signature, max_rows))

        def write(prediction: Prediction) -> bytes:
            return write_json(prediction, is_row)

        return await predictor.predict(spec, read, write, memory)

    def _authorize(self, request: Request) -> None:
        self._predictor.authorize(request.headers.get("authorization"))


class _Body:
    """The body of a request, within the limits of its size and of the sum."""

    def __init__(self, predictor: Predictor) -> None:
        self._limits = predictor.limits
        self._max_bytes = predictor.options.max_request_bytes
        self._held = 0
        self.is_compressed = False

    async def read(self, request: Request) -> bytes:
        encoding = request.headers.get("content-encoding", "identity").lower()
        self.is_compressed = encoding in ("gzip", "x-gzip")
        parts: list[bytes] = []
        is_too_large = False
        async for part in request.stream():
            if is_too_large:
                # Discarded: a client that is still sending reads no answer.
                continue
            self.hold(len(part))
            parts.append(part)
            if self._held > self._max_bytes:
                is_too_large = True
                parts.clear()
                self.release()
        if is_too_large:
            raise too_large(f"A request may have {self._max_bytes} bytes.")
        if not self.is_compressed and encoding != "identity":
            raise ServingError(
                StatusCode.INVALID_ARGUMENT,
                "A body may be compressed by gzip, and by nothing else. "
                f"Received: content-encoding {encoding!r}",
                http=415,
            )
        return b"".join(parts)

    def hold(self, size: int) -> None:
        self._limits.hold(size)
        self._held += size

    def release(self) -> None:
        self._limits.release(self._held)
        self._held = 0


def _unpack(content: bytes, max_bytes: int) -> bytes:
    """Returns what a gzip file holds; a megabyte can hold a thousand."""
    unpacker = zlib.decompressobj(wbits=31)  # gzip alone
    try:
        result = unpacker.decompress(content, max_bytes + 1)
    except zlib.error as error:
        raise invalid(f"The body is no gzip file: {error}") from error
    if len(result) > max_bytes:
        raise too_large(f"A request may have {max_bytes} bytes, unpacked.")
    if not unpacker.eof or unpacker.unused_data:
        raise invalid("The body is no whole gzip file, or more than one.")
    return result


def _parse_path(request: Request) -> tuple[str, ModelSpec]:
    """Returns the method of the API, and the model it is asked of."""
    path = request.scope["raw_path"].decode("ascii", "replace")
    match = _PATH.fullmatch(path)
    key = (request.method, (match[4] or "").lower() if match else None)
    if match is None or key not in _METHODS:
        raise invalid(f"Malformed request: {request.method} {path}")
    name, version, label = match.groups()[:3]
    if version is not None and int(version) > 2**63 - 1:
        raise invalid(f"Failed to convert version: {version} to numeric.")
    return _METHODS[key], ModelSpec(
        unquote(name),
        None if version is None else int(version),
        None if label is None else unquote(label),
    )


async def _respond_error(_: Request, error: Exception) -> Response:
    failure = as_serving_error(error)
    forget_origin(error)
    headers = {}
    if failure.code == StatusCode.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    if failure.http == 503:
        headers["retry-after"] = "1"
    if failure.http == 408:
        # The rest of the body is not waited for.
        headers["connection"] = "close"
    return JSONResponse({"error": failure.message}, failure.http, headers)
