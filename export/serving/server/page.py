"""The web page of the embedded server, for trying images on."""

import functools
import importlib.resources
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from keras_sspcab.export.serving.server.images import ENCODED_INPUT
from keras_sspcab.export.serving.server.models import Models
from keras_sspcab.export.serving.server.versions import Version
from keras_sspcab.scoring import Calibration

#: Files by path: their names and media types.
FILES = {
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
    name, media_type = FILES[request.url.path]
    return Response(_read(name), media_type=media_type, headers=_HEADERS)


def describe(models: Models) -> dict[str, Any]:
    """Returns the models that take encoded images, and the colors of maps."""
    # The same as in the report.
    from keras_sspcab.report.heat import COLOR_TABLE

    newest: dict[str, Version] = {}
    for version in sorted(models.all_versions(), key=lambda v: v.number):
        if version.is_available and version.loaded:
            signature = version.loaded.signatures.get("serving_bytes")
            if signature is not None and ENCODED_INPUT in signature.inputs:
                newest[version.model] = version
    descriptions = []
    for name, version in sorted(newest.items()):
        report = version.loaded.report if version.loaded else {}
        calibration = Calibration.from_dict(report.get("calibration") or {})
        descriptions.append(
            {
                "name": name,
                "version": version.number,
                "threshold": calibration.threshold,
                "pixel_threshold": calibration.pixel_threshold,
                "peak_threshold": calibration.peak_threshold,
                "rule": calibration.describe_rule(),
            }
        )
    return {"models": descriptions, "colors": COLOR_TABLE.tolist()}


@functools.cache
def _read(name: str) -> bytes:
    return (importlib.resources.files(__package__) / name).read_bytes()
