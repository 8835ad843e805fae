"""The REST API of TensorFlow Serving, health, metrics and the web page."""

import re
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
    invalid,
)
from keras_sspcab.export.serving.server.json_tensors import (
    JsonRequest,
    write_json,
)
from keras_sspcab.export.serving.server.messages import (
    metadata_json,
    status_json,
)
from keras_sspcab.export.serving.server.predictor import Predictor
from keras_sspcab.export.serving.server.versions import ModelSpec

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
        predictor = self._predictor
        body = _Body(predictor)
        try:
            content = await predictor.receive(body.read(request))
            parsed = await predictor.in_thread(JsonRequest.parse, content)
            prediction = await predictor.predict(
                spec, parsed.signature, parsed.arrays
            )
            answer = await predictor.in_thread(
                write_json, prediction, parsed.is_row
            )
        except ClientDisconnect as error:
            raise ServingError(
                StatusCode.CANCELLED, "The client has gone."
            ) from error
        finally:
            body.release()
        return Response(answer, media_type="application/json")

    def _authorize(self, request: Request) -> None:
        self._predictor.authorize(request.headers.get("authorization"))


class _Body:
    """The body of a request, within the limits of its size and of the sum."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._held = 0

    async def read(self, request: Request) -> bytes:
        limit = self._predictor.options.max_request_bytes
        parts: list[bytes] = []
        is_too_large = False
        async for part in request.stream():
            if is_too_large:
                # Discarded: a client that is still sending reads no answer.
                continue
            self._predictor.hold(len(part))
            self._held += len(part)
            parts.append(part)
            if self._held > limit:
                is_too_large = True
                parts.clear()
                self.release()
        if is_too_large:
            raise ServingError(
                StatusCode.RESOURCE_EXHAUSTED,
                f"A request may have {limit} bytes.",
                http=413,
            )
        return b"".join(parts)

    def release(self) -> None:
        self._predictor.release(self._held)
        self._held = 0


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
    headers = {}
    if failure.code == StatusCode.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    if failure.http == 503:
        headers["retry-after"] = "1"
    if failure.http == 408:
        # The rest of the body is not waited for.
        headers["connection"] = "close"
    return JSONResponse({"error": failure.message}, failure.http, headers)
