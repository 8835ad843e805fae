"""The web page of the embedded server, for trying images on."""

import functools
import importlib.resources
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from keras_sspcab.export.serving.server.images import ENCODED_INPUT
from keras_sspcab.export.serving.server.models import Models
from keras_sspcab.export.serving.server.versions import Version, VersionState

SIGNATURE = "serving_bytes"

_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_HEADERS = {
    # Only this server, and files that the visitor drops.
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
    """Returns the models and colors that the page shows."""
    return {
        "models": [
            {
                "name": version.model,
                "version": version.number,
                **_thresholds(version),
            }
            for version in _newest_for_files(models)
        ],
        "colors": _colors(),
    }


def _newest_for_files(models: Models) -> list[Version]:
    """Returns the newest version of each model that takes encoded images."""
    newest: dict[str, Version] = {}
    for version in models.all_versions():
        if version.state != VersionState.AVAILABLE or version.loaded is None:
            continue
        signature = version.loaded.signatures.get(SIGNATURE)
        if signature is None or ENCODED_INPUT not in signature.inputs:
            continue
        known = newest.get(version.model)
        if known is None or known.number < version.number:
            newest[version.model] = version
    return list(newest.values())


def _thresholds(version: Version) -> dict[str, float | None]:
    report = version.loaded.report if version.loaded else {}
    calibration = report.get("calibration") or {}
    return {
        name: calibration.get(name) for name in ("threshold", "pixel_threshold")
    }


@functools.cache
def _colors() -> list[list[int]]:
    # The same as in the report.
    from keras_sspcab.report.heat import COLOR_TABLE

    return COLOR_TABLE.tolist()


@functools.cache
def _read(name: str) -> bytes:
    folder = importlib.resources.files(__package__)
    return (folder / name).read_bytes()
