"""The REST API of TensorFlow Serving, health, metrics and the web page."""

import asyncio
import dataclasses
import re
import time
from collections.abc import Callable
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from keras_sspcab.export.serving.server import page
from keras_sspcab.export.serving.server.errors import (
    Code,
    ServingError,
    as_serving_error,
    invalid,
)
from keras_sspcab.export.serving.server.grpc_service import check_token
from keras_sspcab.export.serving.server.json_tensors import (
    JsonRequest,
    write_json,
)
from keras_sspcab.export.serving.server.messages import (
    metadata_json,
    status_json,
)
from keras_sspcab.export.serving.server.metrics import Metrics
from keras_sspcab.export.serving.server.options import ServerOptions
from keras_sspcab.export.serving.server.predictor import Predictor
from keras_sspcab.export.serving.server.versions import Target

_MODEL = r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?"
_PREDICT = re.compile(rf"{_MODEL}:(classify|regress|predict)", re.I | re.A)
_STATUS = re.compile(rf"{_MODEL}(?:/(metadata))?", re.I | re.A)

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@dataclasses.dataclass
class _Answered:
    """What is counted of a request, found out while it is answered."""

    method: str = ""
    model: str = ""


class RestApi:
    """Answers requests over HTTP.

    Args:
        predictor: Answers requests for predictions.
        options: Limits and the token.
        metrics: What is told of requests, and shown.
        is_ready: Whether the server can answer.
    """

    def __init__(
        self,
        predictor: Predictor,
        options: ServerOptions,
        metrics: Metrics,
        is_ready: Callable[[], bool],
    ) -> None:
        self._predictor = predictor
        self._options = options
        self._metrics = metrics
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
                *(
                    Route(path, page.respond)
                    for path in ("/", "/page.css", "/page.js")
                ),
                Route("/page.json", self._page_data),
                Route("/v1/{rest:path}", self._api, methods=_METHODS),
            ]
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
        try:
            self._authorize(request)
        except ServingError as error:
            return _respond_error(error)
        for version in self._predictor.models.all_versions():
            self._metrics.set_version(
                version.model,
                version.number,
                int(version.state),
                bool(version.error),
            )
        return Response(
            self._metrics.text(),
            headers={"content-type": self._metrics.content_type},
        )

    async def _page_data(self, request: Request) -> Response:
        try:
            self._authorize(request)
        except ServingError as error:
            return _respond_error(error)
        models = self._predictor.models
        data = await self._predictor.in_thread(page.describe, models)
        return JSONResponse(data)

    async def _api(self, request: Request) -> Response:
        start = time.perf_counter()
        answered = _Answered()
        code: Code | None = None
        try:
            self._authorize(request)
            return await self._answer(request, answered)
        except asyncio.CancelledError:
            code = Code.CANCELLED
            raise
        except ClientDisconnect:
            code = Code.CANCELLED
            return Response(status_code=code.http)
        except Exception as error:
            failure = as_serving_error(error)
            code = failure.code
            return _respond_error(failure)
        finally:
            known = answered.model in self._predictor.models.names()
            self._metrics.count_request(
                "rest",
                answered.method,
                answered.model if known else "",
                code,
                time.perf_counter() - start,
            )

    async def _answer(self, request: Request, answered: _Answered) -> Response:
        path = request.scope["raw_path"].decode("ascii", "replace")
        if request.method == "POST" and (found := _PREDICT.fullmatch(path)):
            target = _target(*found.groups()[:3])
            method = found[4].capitalize()
            answered.method, answered.model = method, target.name
            if method != "Predict":
                raise ServingError(
                    Code.UNIMPLEMENTED, f"This server has no {method}."
                )
            return await self._predict(request, target)
        if request.method == "GET" and (found := _STATUS.fullmatch(path)):
            target = _target(*found.groups()[:3])
            answered.model = target.name
            models = self._predictor.models
            if found[4]:
                answered.method = "GetModelMetadata"
                return JSONResponse(metadata_json(models, target))
            answered.method = "GetModelStatus"
            return JSONResponse(status_json(models, target))
        raise invalid(f"Malformed request: {request.method} {path}")

    async def _predict(self, request: Request, target: Target) -> Response:
        body = _Body(self._predictor, self._options)
        try:
            content = await body.read(request)
            parsed = await self._predictor.in_thread(JsonRequest.parse, content)
            prediction = await self._predictor.predict(
                target,
                parsed.signature,
                parsed.arrays,
                missing=Code.INVALID_ARGUMENT,
            )
            answer = await self._predictor.in_thread(
                write_json, prediction, parsed.is_row
            )
        finally:
            body.release()
        return Response(answer, media_type="application/json")

    def _authorize(self, request: Request) -> None:
        if self._options.token is not None:
            header = request.headers.get("authorization")
            check_token(header, self._options.token)


class _Body:
    """The body of a request, within the limits of size, sum and time."""

    def __init__(self, predictor: Predictor, options: ServerOptions) -> None:
        self._predictor = predictor
        self._options = options
        self._held = 0

    async def read(self, request: Request) -> bytes:
        limit = self._options.max_request_bytes
        try:
            content = await asyncio.wait_for(
                self._collect(request, limit), self._options.read_timeout
            )
        except asyncio.TimeoutError as error:
            raise ServingError(
                Code.DEADLINE_EXCEEDED, "The request did not come in time.", 408
            ) from error
        if content is None:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"A request may have {limit} bytes.",
                413,
            )
        return content

    def release(self) -> None:
        self._predictor.release(self._held)
        self._held = 0

    async def _collect(self, request: Request, limit: int) -> bytes | None:
        parts: list[bytes] | None = []
        async for part in request.stream():
            if parts is None:
                # Thrown away: who is still sending does not read an answer.
                continue
            self._predictor.hold(len(part))
            self._held += len(part)
            parts.append(part)
            if self._held > limit:
                self.release()
                parts = None
        return None if parts is None else b"".join(parts)


def _target(name: str, version: str | None, label: str | None) -> Target:
    if version is not None and int(version) > 2**63 - 1:
        raise invalid(f"Failed to convert version: {version} to numeric.")
    return Target(
        unquote(name),
        None if version is None else int(version),
        None if label is None else unquote(label),
    )


def _respond_error(error: ServingError) -> Response:
    headers = {}
    if error.code == Code.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    if error.http == 503:
        headers["retry-after"] = "1"
    if error.http == 408:
        # The rest of the body is not waited for.
        headers["connection"] = "close"
    return JSONResponse({"error": error.message}, error.http, headers)
