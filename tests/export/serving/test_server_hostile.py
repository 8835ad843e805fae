"""Images of all formats, and hostile input: it is refused."""

import io
import itertools
import struct
import zlib

import grpc
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.export.serving.models import (
    SIZE,
    assert_same,
    direct,
    encoded,
    images,
)
from tests.export.serving.served import (
    assert_still_serving,
    b64,
    code_of,
    http_call,
    metric,
    predict_path,
    predict_request,
    serve,
)


@pytest.fixture(scope="module")
def server(strict_server):
    return strict_server


@pytest.fixture(autouse=True)
def _still_serving(server, caller):
    yield
    assert_still_serving(server, caller)


def ask_with_files(server, *files):
    body = {
        "signature_name": "serving_bytes",
        "instances": [b64(file) for file in files],
    }
    return http_call(server, predict_path(), body)


def png(width, height, data=b""):
    """A PNG file whose header claims any size."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        length = struct.pack(">I", len(content))
        return length + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", data or zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def gif(frames, size=(8, 8)):
    file = io.BytesIO()
    first, *others = (Image.new("L", size, shade) for shade in range(frames))
    first.save(file, "GIF", save_all=True, append_images=others)
    return file.getvalue()


def test_what_phones_put_behind_a_photo_is_let_be(server):
    for options in ({}, {"progressive": True}):
        photo = encoded(images(1)[0], "JPEG", **options)
        file = photo + b"\xff\xda\0\2" * 200
        assert ask_with_files(server, file)[0] == 200


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (png(30_000, 30_000), "30000 x 30000 pixels"),
        (png(2**31 - 1, 1), "2147483647 x 1 pixels"),
        (encoded(np.zeros((101, 100)), "JPEG"), "100 x 101 pixels"),
        (encoded(np.zeros((101, 100)), "BMP"), "100 x 101 pixels"),
        (encoded(np.zeros((101, 100)), "GIF"), "100 x 101 pixels"),
        (gif(3), "animated"),
        (
            encoded(images(1)[0], "JPEG", progressive=True)[:-2]
            + b"\xff\xda\0\2" * 101
            + b"\xff\xd9",
            "scans",
        ),
        (b"", "must be a PNG, JPEG, BMP, GIF, TIFF or WebP file"),
        (b"<svg></svg>", "must be a PNG"),
        (encoded(images(1)[0])[:20], "cannot be read as PNG"),
        (encoded(images(1)[0], "JPEG")[:30], "cannot be read as JPEG"),
    ],
    ids=itertools.count(),
)
def test_images_are_refused_by_their_headers(server, caller, file, message):
    status, answer = ask_with_files(server, encoded(images(1)[0]), file)
    is_too_large = "pixels" in message
    assert status == (413 if is_too_large else 400)
    assert ("Image 1 is too large" in answer["error"]) == is_too_large
    assert message in answer["error"]
    assert "Image 1" in answer["error"]
    request = predict_request(signature="serving_bytes", image_bytes=[file])
    assert message in refused(caller, request)


def refused(caller, request):
    """Returns why a request is refused."""
    with pytest.raises(grpc.RpcError) as error:
        caller.predict(request)
    assert code_of(error) == "INVALID_ARGUMENT"
    return error.value.details()


def test_images_that_are_too_large_together_are_decoded_one_by_one(server):
    """Each may have 10 000 pixels, and so may each run."""
    files = [encoded(np.full((100, 100), n / 4)) for n in range(3)]
    runs = metric(server, "keras_sspcab_batch_rows_count")
    status, answer = ask_with_files(server, *files)
    assert status == 200
    scores = [row["anomaly_score"] for row in answer["predictions"]]
    expected = direct("serving_bytes", image_bytes=files)["anomaly_score"]
    np.testing.assert_allclose(scores, expected, rtol=1e-3)
    assert metric(server, "keras_sspcab_batch_rows_count") == runs + 3


def _bomb(**fields):
    """A tensor that claims a size which its values do not fill."""
    request = predict_request(image=images(1))
    tensor = request.inputs["image"]
    tensor.ClearField("tensor_content")
    if "sizes" in fields:
        tensor.ClearField("tensor_shape")
        for size in fields.pop("sizes"):
            tensor.tensor_shape.dim.add().size = size
    tensor.float_val.extend(fields.pop("float_val", ()))
    tensor.tensor_shape.unknown_rank = fields.pop("unknown_rank", False)
    for name, value in fields.items():
        setattr(tensor, name, value)
    return request


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (_bomb(sizes=[2**40, 32, 32, 1], float_val=[0.0]), "1024 rows"),
        (_bomb(sizes=[1000, 32, 32, 1], float_val=[0.0]), "bytes"),
        (_bomb(sizes=[-1, 32, 32, 1], float_val=[0.0]), "shape"),
        (_bomb(sizes=[1] * 100, float_val=[0.0]), "shape"),
        (_bomb(unknown_rank=True, float_val=[0.0]), "without a shape"),
        (_bomb(), "no values"),
        (_bomb(float_val=[0.0] * 1025), "cannot be read"),
        (_bomb(tensor_content=b"123"), "cannot be read"),
        (_bomb(dtype=0), "Received: the unknown type 0"),
        (_bomb(dtype=tf.resource.as_datatype_enum), "Received: resource"),
        (_bomb(float_val=[float("nan")]), "not finite"),
        (_bomb(float_val=[float("-inf")]), "not finite"),
    ],
)
def test_tensors_are_refused(caller, request_, message):
    assert message in refused(caller, request_)


def test_strings_stand_for_themselves_only(caller):
    """One large image, a thousand times in a few bytes."""
    request = predict_request(
        signature="serving_bytes", image_bytes=[encoded(images(1)[0])]
    )
    tensor = request.inputs["image_bytes"]
    tensor.tensor_shape.dim[0].size = 1000
    assert "1000 strings" in refused(caller, request)


def test_a_short_tensor_is_filled_up(caller):
    """As the message is defined: the last value stands for the rest."""
    outputs, _ = caller.predict(_bomb(float_val=[0.25, 0.5]))
    image = np.full((1, 32, 32, 1), 0.5, "float32")
    image[0, 0, 0, 0] = 0.25
    assert_same(outputs, direct(image=image))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NaN", "finite"),
        ("Infinity", "finite"),
        ("-Infinity", "finite"),
        ("1e999", "Parse error"),
        ("9" * 300, "too large"),
    ],
)
def test_rest_refuses_values_that_are_not_finite(server, text, message):
    row = images(1).tolist()
    row[0][3][4] = ["here"]
    body = f'{{"instances": {row}}}'.replace("'here'", text).encode()
    status, answer = http_call(server, predict_path(), body)
    assert status == 400
    assert message in answer["error"]


def test_images_from_0_to_255_are_refused(server, caller):
    pixels = np.round(images(2) * 255)
    with pytest.raises(grpc.RpcError) as error:
        caller.predict(predict_request(image=pixels))
    assert "Divide 8-bit images by 255" in error.value.details()
    for key, body in (("inputs", pixels), ("instances", pixels.astype(int))):
        status, answer = http_call(server, predict_path(), {key: body.tolist()})
        assert status == 400
        assert "must have values up to 1. Received" in answer["error"]
    # Interpolation leaves values slightly outside.
    slightly = {"inputs": (1.2 * images(1)).tolist()}
    assert http_call(server, predict_path(), slightly)[0] == 200


def test_not_finite_values_may_be_allowed():
    batch = images(3)
    batch[1, 3, 3, 0] = np.nan
    with serve(allow_non_finite=True) as server:
        body = {"inputs": batch.tolist()}
        status, answer = http_call(server, predict_path(), body)
    assert status == 200
    scores = answer["outputs"]["anomaly_score"]
    assert np.isnan(scores[1])
    np.testing.assert_allclose(
        [scores[0], scores[2]],
        direct(image=batch[::2])["anomaly_score"],
        rtol=1e-3,
    )


def test_requests_have_a_largest_size(server, caller):
    batch = images(300)
    with pytest.raises(grpc.RpcError) as error:
        caller.predict(predict_request(image=batch))
    assert code_of(error) == "RESOURCE_EXHAUSTED"
    body = b'{"instances": [%s]}' % (b" " * (1 << 20))
    status, answer = http_call(server, predict_path(), body)
    assert status == 413
    assert "1048576 bytes" in answer["error"]


# Images are answered as they were trained on, or refused.


@pytest.fixture(scope="module")
def gray():
    """16 levels, for palettes of 4 bits."""
    return np.round(images(1)[0, ..., 0] * 15).astype("uint8") * 17


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
    status, answer = ask_with_files(server, png, encode(gray, kind))
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
        status, answer = ask_with_files(server, file, stream.getvalue())
        assert status == 200
        first, second = answer["predictions"]
        assert first == second
    for name in ("cut.jpg", "empty.png", "html.png"):
        status, _ = ask_with_files(
            server, (faults / "images" / name).read_bytes()
        )
        assert status == 400


def test_broken_files_are_refused_as_what_they_are(server, gray):
    whole = encode(gray, "GIF")
    for file, message in (
        (whole[:200], "broken or truncated GIF"),
        (encode(gray, "TIFF")[:300], "TIFF"),
        (encoded(np.zeros((SIZE, SIZE))).replace(b"IHDR", b"IHDX"), "PNG"),
    ):
        status, answer = ask_with_files(server, file)
        assert status == 400
        assert message in answer["error"]
        assert "Image 0" in answer["error"]
    for kind in ("PNG", "JPEG"):
        file = encode(gray, kind)
        status, answer = ask_with_files(server, file, file[: len(file) // 2])
        assert status == 400
        assert f"Image 1 is broken or truncated {kind}" in answer["error"]
