"""Images in all formats are answered as they were trained on, or refused."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.export.serving.models import SIZE, direct, encoded, images
from tests.export.serving.served import b64, http_call, predict_path


@pytest.fixture(scope="module")
def server(strict_server):
    return strict_server


@pytest.fixture(scope="module")
def gray():
    """16 levels, for palettes of 4 bits."""
    return np.round(images(1)[0, ..., 0] * 15).astype("uint8") * 17


def ask(server, *files):
    body = {
        "signature_name": "serving_bytes",
        "instances": [b64(file) for file in files],
    }
    return http_call(server, predict_path(), body)


def encode(gray, kind):
    image = Image.fromarray(gray)
    options = {}
    if kind == "reversed palette":
        image = Image.fromarray(255 - gray).convert("P")
        image.putpalette([v for i in range(256) for v in [255 - i] * 3])
    elif kind == "upside down":
        image = image.transpose(Image.Transpose.ROTATE_180)
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 3
    kinds = {"reversed palette": "BMP", "upside down": "PNG"}
    if kind == "WEBP":
        options["lossless"] = True
    stream = io.BytesIO()
    image.save(stream, kinds.get(kind, kind), **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "kind",
    ["BMP", "GIF", "TIFF", "WEBP", "reversed palette", "upside down"],
)
def test_formats_have_the_same_answer(server, gray, kind):
    png = encode(gray, "PNG")
    status, answer = ask(server, png, encode(gray, kind))
    assert status == 200
    first, second = answer["predictions"]
    assert first == second
    (expected,) = direct("serving_bytes", image_bytes=[png])["anomaly_score"]
    assert first["anomaly_score"] == pytest.approx(expected, rel=1e-3)


def test_images_of_the_faults(server, faults):
    for name in ("palette.bmp", "bit1.bmp"):
        file = (faults / "images" / name).read_bytes()
        with Image.open(io.BytesIO(file)) as image:
            stream = io.BytesIO()
            image.convert("RGB").save(stream, "PNG")
        status, answer = ask(server, file, stream.getvalue())
        assert status == 200
        first, second = answer["predictions"]
        assert first == second
    for name in ("cut.jpg", "empty.png", "html.png"):
        status, _ = ask(server, (faults / "images" / name).read_bytes())
        assert status == 400


def test_broken_files_are_refused_as_what_they_are(server, gray):
    whole = encode(gray, "GIF")
    for file, message in (
        (whole[:200], "broken or truncated GIF"),
        (encode(gray, "TIFF")[:300], "TIFF"),
        (encoded(np.zeros((SIZE, SIZE))).replace(b"IHDR", b"IHDX"), "PNG"),
    ):
        status, answer = ask(server, file)
        assert status == 400
        assert message in answer["error"]
        assert "Image 0" in answer["error"]
