"""The web page of the embedded server: drop an image, see what is wrong."""

import functools
import importlib.resources
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from keras_sspcab.export.serving.server.images import ENCODED_INPUT
from keras_sspcab.export.serving.server.models import Models
from keras_sspcab.export.serving.server.versions import State

SIGNATURE = "serving_bytes"

_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_HEADERS = {
    # Nothing but this server, and what the visitor drops.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


async def respond(request: Request) -> Response:
    """Returns the file of a path."""
    name, media_type = _FILES[request.url.path]
    return Response(_read(name), media_type=media_type, headers=_HEADERS)


def describe(models: Models) -> dict[str, Any]:
    """Returns what the page must know: the models and the colors."""
    return {
        "models": [
            {"name": version.model, "version": version.number, **_scale(report)}
            for version, report in _takers(models)
        ],
        "colors": _colors(),
    }


def _takers(models: Models) -> list[tuple[Any, dict[str, Any]]]:
    """Finds the newest versions that take encoded images."""
    newest: dict[str, tuple[Any, dict[str, Any]]] = {}
    for version in models.all_versions():
        loaded = version.loaded
        if version.state == State.AVAILABLE and loaded is not None:
            signature = loaded.signatures.get(SIGNATURE)
            known = newest.get(version.model)
            if signature is None or ENCODED_INPUT not in signature.inputs:
                continue
            if known is None or known[0].number < version.number:
                newest[version.model] = (version, loaded.report)
    return list(newest.values())


def _scale(report: dict[str, Any]) -> dict[str, float | None]:
    calibration = report.get("calibration") or {}
    return {
        name: calibration.get(name) for name in ("threshold", "pixel_threshold")
    }


@functools.cache
def _colors() -> list[list[int]]:
    # The colors of the report: what is red here is red there.
    from keras_sspcab.report.heat import COLOR_TABLE

    return COLOR_TABLE.tolist()


@functools.cache
def _read(name: str) -> bytes:
    folder = importlib.resources.files(__package__)
    return (folder / name).read_bytes()
