"""What visitors of the page can change: marks of answers, and the version."""

import math
import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from grpc import StatusCode
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from keras_sspcab.data import MarkedImages
from keras_sspcab.data.marked import MARKS
from keras_sspcab.export.serving.model_config import MODELS_CONFIG
from keras_sspcab.export.serving.repository import Repository
from keras_sspcab.export.serving.server.errors import ServingError, invalid
from keras_sspcab.export.serving.server.images import count_pixels
from keras_sspcab.export.serving.server.limits import read_body
from keras_sspcab.export.serving.server.predictor import Predictor


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


# What is noted of an answer, and how it is read.
_NOTED: dict[str, Callable[[str], Any]] = {
    "model": str,
    "version": int,
    "score": _finite,
    "threshold": _finite,
}
# Pages of other sites cannot send it without asking, which is not answered.
_MEDIA_TYPE = "application/octet-stream"


class FeedbackApi:
    """Keeps marked images, and serves older versions again.

    `POST /feedback?mark=MARK&name=NAME`, with an image as body, marks its
    answer; `mark=none` takes it back. `POST /version?model=NAME&version=N`
    serves an older version; with the newest one, or `version=latest`, those
    that come later are served as well.

    Args:
        models: What is served; only a repository has versions to choose from,
            unless the server was told which to serve.
        predictor: Whose limits and token hold.

    Raises:
        ValueError: If the folder for marked images cannot be written to.
    """

    def __init__(
        self, models: str | os.PathLike[str], predictor: Predictor
    ) -> None:
        folder = predictor.options.feedback
        if folder is None:
            raise ValueError("The server has no folder for marked images.")
        try:
            os.makedirs(folder, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise ValueError(
                "Marked images cannot be written to the folder `feedback`: "
                f"{error}"
            ) from error
        self._marked = MarkedImages(folder)
        self._repository = Repository(models)
        self._predictor = predictor

    @property
    def routes(self) -> list[Route]:
        """The routes for an application."""
        return [
            Route("/feedback", self._mark, methods=["POST"]),
            Route("/version", self._serve_version, methods=["POST"]),
        ]

    def versions(self, model: str) -> list[int]:
        """Returns the versions that a model can be served in, newest first."""
        repository = self._repository
        if not (repository.directory / MODELS_CONFIG).is_file():
            return []
        if self._predictor.options.versions or model not in repository.names:
            return []
        return repository.versions(model)[::-1]

    async def _mark(self, request: Request) -> Response:
        self._check(request)
        predictor, query = self._predictor, request.query_params
        mark, name = query.get("mark", ""), query.get("name", "image")
        if mark not in (*MARKS, "none"):
            raise invalid(
                f"`mark` is one of {', '.join(MARKS)} and none. Received: "
                f"mark={mark!r}"
            )
        try:
            answer = {
                key: read(query[key])
                for key, read in _NOTED.items()
                if key in query
            }
        except ValueError as error:
            raise invalid(f"The answer is no number: {error}") from error
        limits = predictor.limits
        with limits.holding() as hold:
            content = await limits.receive(
                read_body(request, hold, predictor.options.max_request_bytes)
            )
            pixels = predictor.options.max_image_pixels
            (size,) = await predictor.in_thread(
                count_pixels, np.array([content], object), pixels
            )
            await predictor.in_thread(
                self._keep, content, mark, name, answer, memory=4 * size
            )
        counts = {
            "false_alarms": len(self._marked.false_alarms),
            "missed": len(self._marked.missed),
        }
        return JSONResponse(counts)

    def _keep(
        self, content: bytes, mark: str, name: str, answer: dict[str, Any]
    ) -> None:
        if mark == "none":
            self._marked.remove(content)
            return
        try:
            self._marked.add(content, mark, name, answer)
        except ValueError as error:
            raise invalid(str(error)) from error
        except OSError as error:
            raise ServingError(
                StatusCode.INTERNAL,
                f"The image could not be kept: {error.strerror or error}",
            ) from error

    async def _serve_version(self, request: Request) -> Response:
        self._check(request)
        model = request.query_params.get("model", "")
        wanted = request.query_params.get("version", "")
        is_number = wanted.isascii() and wanted.isdigit()
        if not is_number and wanted != "latest":
            raise invalid(
                "`version` is a number, or latest. Received: "
                f"version={wanted!r}"
            )
        if self._predictor.options.versions:
            raise ServingError(
                StatusCode.FAILED_PRECONDITION,
                "This server was started for certain versions, and serves no "
                "others.",
            )
        if not self.versions(model):
            raise ServingError(
                StatusCode.NOT_FOUND,
                f"There is no repository with versions of the model {model!r}.",
            )
        try:
            version = await self._predictor.in_thread(
                self._pin, model, int(wanted) if is_number else None
            )
        except ValueError as error:
            raise invalid(str(error)) from error
        return JSONResponse({"model": model, "version": version})

    def _pin(self, model: str, version: int | None) -> int:
        if version in (None, self._repository.versions(model)[-1]):
            return self._repository.unpin(model)
        return self._repository.rollback(model, version)

    def _check(self, request: Request) -> None:
        """Refuses strangers, and forms and scripts of other sites."""
        self._predictor.authorize(request.headers.get("authorization"))
        received = request.headers.get("content-type", "")
        if received != _MEDIA_TYPE:
            raise ServingError(
                StatusCode.INVALID_ARGUMENT,
                f"Send it as {_MEDIA_TYPE}. Received: content-type "
                f"{received[:100]!r}",
                http=415,
            )
