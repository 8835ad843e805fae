"""What the client makes of images before anything is sent."""

import itertools
import warnings

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from keras_sspcab.data import decoding
from keras_sspcab.export import Client, ServingClientError
from keras_sspcab.export.serving.client.inputs import (
    Cell,
    Row,
    make_rows,
    split_rows,
    stack_rows,
)
from keras_sspcab.export.serving.client.results import (
    ModelMetadata,
    SignatureInfo,
    TensorInfo,
)
from tests.export.serving.models import encoded

GRAY = TensorInfo("float32", (None, 4, 6, 1))
COLOR = TensorInfo("float32", (None, None, None, 3))
CLIP = TensorInfo("float32", (None, 3, 4, 6, 1))
FILE = TensorInfo("string", (None,))
PNG = encoded(np.zeros((4, 6)))


def model(**signatures):
    outputs = {"anomaly_score": TensorInfo("float32", (None,))}
    return ModelMetadata(
        "model",
        1,
        {name: SignatureInfo(i, outputs) for name, i in signatures.items()},
    )


IMAGES = model(
    serving_default={"image": GRAY}, serving_bytes={"image_bytes": FILE}
)
OBJECTS = model(
    serving_default={
        "appearance": TensorInfo("float32", (None, 4, 4, 1)),
        "motion": TensorInfo("float32", (None, 4, 4, 2)),
    }
)


def rows_of(images, metadata=IMAGES, signature=None):
    return make_rows(images, metadata, signature)


def sent(images, metadata=IMAGES):
    return stack_rows(rows_of(images, metadata))


def refused(images, metadata=IMAGES, signature=None):
    with pytest.raises(ServingClientError) as error:
        rows_of(images, metadata, signature)
    assert error.value.code == "INVALID_ARGUMENT"
    assert not error.value.retriable
    return error.value.message


@pytest.mark.parametrize("info", [GRAY, CLIP])
def test_shapes(info):
    row = info.shape[1:]
    for shape in (row[:-1], row, (1, *row), (5, *row)):
        value = np.random.default_rng(0).random(shape, dtype="float32")
        image = sent(value, model(serving_default={"image": info}))["image"]
        np.testing.assert_array_equal(image, value.reshape(-1, *row))


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", ml_dtypes.bfloat16]
)
def test_floats(dtype):
    value = np.random.default_rng(0).random((4, 6)).astype(dtype)
    image = sent(value)["image"]
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image[0, ..., 0], value.astype("float32"))


def test_pixels_are_what_decoding_makes_of_them():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6)).astype("uint8")
    expected = tf.image.convert_image_dtype(pixels, tf.float32).numpy()
    image = sent(pixels)["image"]
    assert image.dtype == np.float32
    np.testing.assert_allclose(image[0, ..., 0], expected, atol=1e-7)
    assert {0.0, 1.0} >= set(sent(np.uint8([[0, 255] * 3] * 4))["image"].flat)


def test_arrays_of_other_libraries():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6)).astype("uint8")
    expected = sent(pixels)["image"]
    for images in (tf.constant(pixels), [tf.constant(pixels)]):
        np.testing.assert_array_equal(sent(images)["image"], expected)


def test_files(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(PNG)
    for image in (path, str(path), PNG, bytearray(PNG), memoryview(PNG)):
        assert sent(image) == {"image_bytes": [PNG]}
        assert sent([image, PNG]) == {"image_bytes": [PNG, PNG]}
        assert sent({"image_bytes": image}) == {"image_bytes": [PNG]}
    assert "Received: list" in refused({"image_bytes": [PNG, path]})


def test_all_that_the_server_reads_is_sent():
    for magics in decoding._MAGIC.values():
        for magic in magics:
            assert sent(magic + bytes(40))
    assert sent(b"RIFF\0\0\0\0WEBP" + bytes(40))


def test_files_are_read_when_they_are_sent(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(PNG)
    rows = rows_of(path)
    path.unlink()
    with pytest.raises(ServingClientError, match=r"x.png\) cannot be read"):
        stack_rows(rows)


def test_named_inputs():
    parts = {
        "motion": np.full((2, 4, 4, 2), -7.0),
        "appearance": np.full((2, 4, 4), 255, "uint8")[..., None],
    }
    arrays = sent(parts, OBJECTS)
    np.testing.assert_array_equal(arrays["motion"], parts["motion"])
    assert (arrays["appearance"] == 1).all()
    one = {name: part[0] for name, part in parts.items()}
    assert len(sent([one, parts, one], OBJECTS)["motion"]) == 4


def test_integers_for_models_that_take_them():
    metadata = model(
        serving_default={"codes": TensorInfo("int32", (None, 2))},
        pixels={"image": TensorInfo("uint8", (None, 4, 6, 1))},
    )
    assert sent(np.int16([[1, 2]]), metadata)["codes"].dtype == np.int32
    assert "must be of the type int32" in refused(np.int64([[1, 2]]), metadata)
    (row,) = rows_of(np.full((4, 6), 9, "uint8"), metadata, "pixels")
    assert row.cells["image"].load().max() == 9


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (5, "must be an array, the path or the content"),
        (None, "Received: None"),
        ([5], "Input 0 must be an array"),
        ([[PNG]], "Received: list"),
        (np.array(["x"]), "array of numbers"),
        (np.zeros((4, 6), bool), "type float32, or uint8"),
        (np.zeros((4, 6), "uint16"), "dtype=uint16"),
        (np.zeros((4, 6), complex), "array of numbers"),
        (np.full((4, 6), np.nan), "not finite"),
        (np.full((4, 6), np.inf, "float16"), "not finite"),
        (np.full((4, 6), 255.0), r"in [0, 1], or 0 to 255 as uint8"),
        (np.full((4, 6), -0.5), "from -0.5 to -0.5"),
        (np.zeros((6, 4)), "must have the shape (4, 6, 1) of 'image'"),
        (np.zeros((4, 6, 3)), "Received: (4, 6, 3)"),
        (np.zeros((2, 4, 6)), "or (?, 4, 6, 1) for several"),
        (b"", "must be a PNG, JPEG, BMP, GIF, TIFF or WebP file"),
        (b"RIFX....WEBP", "RIFX"),
        ("", "cannot be read"),
        ("nowhere.png", "(nowhere.png) cannot be read: No such file"),
        ("nul\0", "cannot be read: embedded null"),
        ({}, "must have the inputs image"),
        ({"image": PNG}, "takes arrays of the type float32"),
        ({"image_bytes": np.zeros((4, 6))}, "takes image files"),
        ({"image": {"image": 1}}, "Received: dict"),
    ],
)
def test_wrong_inputs(images, message):
    assert message in refused(images)


def test_wrong_signatures():
    assert "no signature 'other'" in refused(PNG, signature="other")
    assert "takes image files" in refused(
        np.zeros((4, 6)), signature="serving_bytes"
    )
    arrays_only = model(serving_default={"image": GRAY})
    message = refused([np.zeros((4, 6)), PNG], arrays_only)
    assert "Input 1 is a file; the model takes arrays only" in message


def test_wrong_named_inputs():
    assert "must be a dict" in refused(np.zeros((4, 4, 1)), OBJECTS)
    parts = {"appearance": np.zeros((2, 4, 4, 1))}
    assert "Received: appearance" in refused(parts, OBJECTS)
    parts["motion"] = np.zeros((3, 4, 4, 2))
    assert "same number of rows" in refused(parts, OBJECTS)
    # 255 stands for 1 in images only.
    parts["motion"] = np.zeros((2, 4, 4, 2), "uint8")
    assert "Input 0, 'motion' must be of the type float32." in refused(
        [parts], OBJECTS
    )


def test_a_model_that_has_no_rows():
    metadata = model(serving_default={"image": TensorInfo("float32", ())})
    assert "no rows" in refused(np.zeros(3), metadata)
    metadata = model(serving_default={"image": TensorInfo("float32", None)})
    assert "no rows" in refused(np.zeros(3), metadata)


@given(
    kinds=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 50))),
    count=st.integers(1, 6),
    limit=st.integers(1, 120),
    answer=st.integers(0, 60),
)
def test_split(kinds, count, limit, answer):
    rows = [Row(kind, {"x": Cell(bytes, size)}) for kind, size in kinds]
    parts = list(
        split_rows(
            rows,
            count,
            limit,
            lambda number, size: number * size,
            {"a": answer, "b": 0}.__getitem__,
        )
    )
    # What is asked or what is answered, whichever is more.
    kinds = [(k, max(n, 4 * answer * (k == "a"))) for k, n in kinds]
    assert sorted(i for part in parts for i in part) == list(range(len(rows)))
    for part in parts:
        assert part == sorted(part)
        assert len({rows[i].signature for i in part}) == 1
        assert len(part) <= count
        total = sum(kinds[i][1] for i in part)
        assert len(part) == 1 or total <= limit
    # None that could have traveled with the one before it.
    for one, two in itertools.pairwise(parts):
        if rows[one[0]].signature == rows[two[0]].signature:
            total = sum(kinds[i][1] for i in one) + kinds[two[0]][1]
            assert len(one) == count or total > limit


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": ""}, "`target`"),
        ({"target": "http://h:1", "protocol": "grpc"}, "without http://"),
        ({"target": "h:1", "protocol": "soap"}, "`protocol`"),
        ({"target": "http://h:1", "tls": True}, "https://"),
        ({"target": "https://h:1", "tls": False}, "https://"),
        ({"target": "h:1", "tls": False, "tls_ca": __file__}, "tls=False"),
        ({"target": "h:1", "tls_ca": "nowhere.pem"}, "nowhere.pem"),
        ({"model": ""}, "`model`"),
        ({"version": 1, "label": "x"}, "not both"),
        ({"timeout": float("nan")}, "`timeout`"),
        ({"retries": -1}, "`retries`"),
        ({"max_batch_size": 0}, "`max_batch_size`"),
        ({"max_request_bytes": 1.5}, "`max_request_bytes`"),
        ({"token": "two words"}, "`token`"),
        ({"token": "of-a-file\n"}, "the end of its line"),
        ({"version": "3"}, "`version`"),
        ({"target": "me:secret@h:1"}, "'h:1', behind a user and password"),
        ({"target": "http://me:pw@h:1", "token": "t"}, "a user and password"),
    ],
)
def test_wrong_arguments(arguments, message):
    arguments = {"target": "localhost:1", "model": "x", **arguments}
    with pytest.raises(ValueError, match=message) as error:
        Client(**arguments)
    assert "two words" not in str(error.value)


@pytest.mark.parametrize(
    ("target", "options", "protocol"),
    [
        ("localhost:8500", {}, "grpc"),
        ("[::1]:8500", {}, "grpc"),
        ("unix:/tmp/socket", {}, "grpc"),
        ("http://localhost:8501", {}, "rest"),
        ("https://example.org/serving/", {}, "rest"),
        ("localhost:8501", {"protocol": "rest"}, "rest"),
    ],
)
def test_protocol(target, options, protocol):
    with Client(target, model="x", **options) as client:
        assert client.protocol == protocol


def test_tokens_in_the_clear():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for target in ("localhost:1", "http://127.0.0.1:1", "https://a.b"):
            Client(target, model="x", token="secret-token").close()
    with pytest.warns(UserWarning, match="a.b without TLS") as caught:
        Client("a.b:8500", model="x", token="secret-token").close()
    assert caught[0].filename == __file__
