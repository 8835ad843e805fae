"""Arrays of numbers are read at once, and as strictly as all other JSON."""

import json
import random

import numpy as np
import pytest
import tensorflow as tf

from keras_sspcab.export.serving.server import json_tensors
from keras_sspcab.export.serving.server.errors import ServingError
from keras_sspcab.export.serving.server.json_tensors import JsonRequest
from keras_sspcab.export.serving.server.signature import Signature

REGULAR = [
    "[1]",
    "[0.5,-2,3e-7,1E+2]",
    "[[1, 2],\n [3, 4]]",
    "[[[[0.25],[1]],[[-0.0],[4]]],[[[5],[6]],[[7],[18446744073709551615]]]]",
    "\t[ [ [1 , 2 ] , [3,4] ] ]\r\n",
]
BODIES = [
    '{"inputs": %s}',
    '{"instances": %s, "signature_name": ""}',
    '{"signature_name": "serving_default", "inputs": {"x": %s}}',
]
WRONG = [
    *("[1 2]", "[1,]", "[,1]", "[+1]", "[01]", "[1.]", "[.5]", "[1e]", "[--1]"),
    *("[1[2]]", "[[1]2,[3]]", "[2[],[1]]", "[[1],2[]]", "[[[]2],[[3]]]"),
    *("[[],[1]]", "[[1],[2,3]]", "[[1,2],3]", "[1,[2]]", "[[1]", "[1]]"),
    "[[[1],[2]],[[3]]]",
]


def signature_of(rank=None):
    shape = None if rank is None else [None] * rank
    spec = tf.TensorSpec(shape, tf.float32)
    return Signature("", {"x": spec}, {}, lambda x: {})


def read(body, is_at_once=True):
    """Returns the array of a request; None if it is refused."""
    parse = json_tensors._parse_numbers
    if not is_at_once:
        json_tensors._parse_numbers = lambda body: None
    try:
        request = JsonRequest.parse(body.encode())
        return request.arrays(signature_of(), 1000)["x"]
    except ServingError:
        return None
    finally:
        json_tensors._parse_numbers = parse


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("text", REGULAR)
def test_numbers_are_read_at_once(body, text, monkeypatch):
    monkeypatch.setattr(json_tensors.json, "loads", None)
    expected = np.array(json.JSONDecoder().decode(text.strip()), "float64")
    array = read(body % text)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, expected.astype("float32"))
    request = JsonRequest.parse((body % text).encode())
    value = request.value
    value = value["x"] if isinstance(value, dict) else value
    assert type(value).__name__ == "_Numbers"


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_regular_array_is_refused(body, text):
    assert read(body % text) is None


@pytest.mark.parametrize(
    "body",
    [
        '{"inputs": "[1,2]"}',
        '{"inputs": null, "other": [1]}',
        '{"inputs": {"x": null, "y": [1]}}',
        '{"inputs": 1, "signature_name": "[1]"}',
        '{"inputs": 1, "instances": [1]}',
        '{"inputs": [1], "inputs": 2}',
        '{"inputs": {"x": [1], "x": 2}}',
        '["inputs", [1]]',
    ],
)
def test_an_array_elsewhere_is_not_the_input(body):
    for is_at_once in (True, False):
        array = read(body, is_at_once)
        assert array is None or array.shape == ()


def test_the_largest_number_of_dimensions():
    deep = "[" * 32 + "1" + "]" * 32
    assert read(BODIES[0] % deep).shape == (1,) * 32
    assert read(BODIES[0] % f"[{deep}]") is None


def test_whole_numbers_stay_whole():
    spec = tf.TensorSpec((None,), tf.int32)
    signature = Signature("", {"x": spec}, {}, lambda x: {})
    arrays = JsonRequest.parse(b'{"inputs": [1, -2]}').arrays(signature, 9)
    assert arrays["x"].tolist() == [1, -2]
    for text in (b"[1, 2.0]", b"[3000000000]", b"[true]"):
        with pytest.raises(ServingError):
            JsonRequest.parse(b'{"inputs": %b}' % text).arrays(signature, 9)


def test_null_leaves_out_what_is_optional_and_products_have_names():
    specs = {
        "x": tf.TensorSpec((None,), tf.float32),
        "product": tf.TensorSpec((None,), tf.int32),
        "threshold": tf.TensorSpec((None,), tf.float32),
    }
    signature = Signature(
        *("", specs, {}, lambda **_: {}),
        optional=frozenset({"product", "threshold"}),
        products=("nut", "bolt"),
    )

    def arrays(**body):
        request = JsonRequest.parse(json.dumps(body).encode())
        return request.arrays(signature, 9)

    rows = [{"x": 1, "product": "bolt", "threshold": None}, {"x": 2}]
    columns = {"x": [1, 2], "product": ["bolt", None], "threshold": None}
    for read in (arrays(instances=rows), arrays(inputs=columns)):
        assert read["product"].tolist() == [1, -1]
        assert np.isnan(read["threshold"]).tolist() == [True, True]
    for body in ({"instances": [{"x": None}]}, {"inputs": {"x": [None]}}):
        with pytest.raises(ServingError, match="Received: null"):
            arrays(**body)


def test_damaged_bodies_are_read_as_without_the_short_way():
    """Characters come, go and change places; most results are refused."""
    rng = random.Random(0)
    accepted = 0
    for _ in range(4000):
        body = list(rng.choice(BODIES) % rng.choice(REGULAR))
        for _ in range(rng.choice([1, 1, 2, 3])):
            place = rng.randrange(len(body))
            if rng.random() < 0.5:
                del body[place]
            else:
                body.insert(place, rng.choice('[],0.1-e5 "{}:nN'))
        text = "".join(body)
        fast, slow = read(text), read(text, is_at_once=False)
        assert (fast is None) == (slow is None), text
        if fast is not None:
            np.testing.assert_array_equal(fast, slow, text)
            accepted += 1
    assert 200 < accepted < 3000
