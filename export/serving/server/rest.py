"""The REST API of TensorFlow Serving, health, metrics and the web page."""

import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote

from grpc import StatusCode
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from keras_sspcab.export.manifest import MAX_VERSION
from keras_sspcab.export.serving.server.errors import (
    ServingError,
    as_serving_error,
    forget_origin,
    invalid,
    too_large,
)
from keras_sspcab.export.serving.server.feedback import FeedbackApi
from keras_sspcab.export.serving.server.images import ENCODED_INPUT
from keras_sspcab.export.serving.server.json_tensors import (
    JsonRequest,
    memory_needed,
    write_json,
)
from keras_sspcab.export.serving.server.limits import read_body
from keras_sspcab.export.serving.server.messages import (
    metadata_json,
    status_json,
)
from keras_sspcab.export.serving.server.predictor import (
    Prediction,
    Predictor,
    Question,
)
from keras_sspcab.export.serving.server.versions import (
    LoadedVersion,
    ModelSpec,
    Version,
)
from keras_sspcab.export.serving.server.web import page_routes
from keras_sspcab.scoring import Calibration

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

# Digits take so many times as long as the bytes of numbers: nobody else must
# wait for that.
_WEIGHT_OF_JSON = 20


class RestApi:
    """Answers requests over HTTP; `is_ready` says whether the server can.

    With a `feedback` visitors of the page mark answers and choose versions.
    """

    def __init__(
        self,
        predictor: Predictor,
        is_ready: Callable[[], bool],
        feedback: FeedbackApi | None = None,
    ) -> None:
        self._predictor = predictor
        self._is_ready = is_ready
        self._feedback = feedback

    def application(self) -> Starlette:
        """Returns the application for an ASGI server."""
        return Starlette(
            routes=[
                Route("/v1/{rest:path}", self._api, methods=_HTTP_METHODS),
                Route("/healthz", self._health),
                Route("/readyz", self._readiness),
                Route("/metrics", self._show_metrics),
                # Where TensorFlow Serving has them.
                Route("/monitoring/prometheus/metrics", self._show_metrics),
                *page_routes(__package__),
                Route("/page.json", self._page_data),
                *(self._feedback.routes if self._feedback else ()),
            ],
            exception_handlers={
                ServingError: _respond_error,
                # It is logged as well.
                Exception: _respond_error,
            },
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
        metrics.set_drift(
            (version.model, version.number, version.loaded.drift.monitor)
            for version in self._predictor.models.all_versions()
            if version.loaded and version.loaded.drift.monitor
        )
        headers = {"content-type": metrics.content_type}
        return Response(metrics.text(), headers=headers)

    async def _page_data(self, request: Request) -> Response:
        self._authorize(request)
        data = await self._predictor.in_thread(
            _describe, self._predictor.models.all_versions()
        )
        if feedback := self._feedback:
            for model in data["models"]:
                model["versions"] = await self._predictor.in_thread(
                    feedback.versions, model["name"]
                )
        return JSONResponse({**data, "feedback": feedback is not None})

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
        max_bytes = self._predictor.options.max_request_bytes
        encoding = request.headers.get("content-encoding", "identity").lower()
        with limits.holding() as hold:
            content = await limits.receive(read_body(request, hold, max_bytes))
            if encoding not in ("identity", "gzip", "x-gzip"):
                raise ServingError(
                    StatusCode.INVALID_ARGUMENT,
                    "A body may be compressed by gzip, and by nothing else. "
                    f"Received: content-encoding {encoding!r}",
                    http=415,
                )
            answer = await limits.answer(
                self._answer(content, encoding != "identity", spec, hold)
            )
        return Response(answer, media_type="application/json")

    async def _answer(
        self,
        content: bytes,
        is_compressed: bool,
        spec: ModelSpec,
        hold: Callable[[int], None],
    ) -> bytes:
        predictor = self._predictor
        if is_compressed:
            limit = predictor.options.max_request_bytes
            content = await predictor.in_thread(
                _unpack, content, limit, memory=limit
            )
            hold(len(content))
        memory = await predictor.work(
            lambda _: memory_needed(content), len(content)
        )
        is_row = False

        def read(version: LoadedVersion, _: bool) -> Question:
            nonlocal is_row
            request = JsonRequest.parse(content)
            is_row = request.is_row
            signature = version.signature(request.signature)
            max_rows = predictor.options.max_rows
            return Question(signature, request.arrays(signature, max_rows))

        def write(prediction: Prediction) -> bytes:
            return write_json(prediction, is_row)

        return await predictor.predict(
            spec, read, write, memory, weight=_WEIGHT_OF_JSON
        )

    def _authorize(self, request: Request) -> None:
        self._predictor.authorize(request.headers.get("authorization"))


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
    # Python reads numbers of some thousand digits, and no longer ones.
    if version and (len(version) > 1000 or int(version) > MAX_VERSION):
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


# What the page shows of an answer.
_SHOWN = {"anomaly_score", "anomaly_map", "is_anomalous"}


def _describe(versions: Sequence[Version]) -> dict[str, Any]:
    """Returns the models that the page can show, and the colors of maps.

    They take encoded images and give maps.
    """
    # The same as in the report.
    from keras_sspcab.pictures.heat import COLOR_TABLE

    newest: dict[str, tuple[int, LoadedVersion]] = {}
    for version in sorted(versions, key=lambda v: v.number):
        loaded = version.loaded
        if version.is_available and loaded:
            signature = loaded.signatures.get("serving_bytes")
            if (
                signature is not None
                and ENCODED_INPUT in signature.inputs
                and set(signature.outputs) >= _SHOWN
            ):
                newest[version.model] = version.number, loaded
    descriptions = []
    for name, (number, loaded) in sorted(newest.items()):
        report, calibration = loaded.report, loaded.calibration
        descriptions.append(
            {
                "name": name,
                "version": number,
                **_limits(calibration),
                "products": [
                    {"product": part.name, **_limits(part)}
                    for part in calibration.products
                ],
                "has_regions": bool(report.get("regions")),
                "region_labels": report.get("region_labels"),
                "fit": (report.get("preprocessing") or {}).get("fit"),
                "drift": loaded.drift.describe(),
            }
        )
    return {"models": descriptions, "colors": COLOR_TABLE.tolist()}


def _limits(calibration: Calibration) -> dict[str, Any]:
    """Returns what decides, for the page."""
    return {
        "threshold": calibration.threshold,
        "pixel_threshold": calibration.pixel_threshold,
        "peak_threshold": calibration.peak_threshold,
        "decision": calibration.decision,
        "regions": [
            {"name": part.name, "threshold": part.threshold}
            for part in calibration.regions
        ],
        "rule": calibration.describe_rule(),
    }
