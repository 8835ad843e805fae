"""Random and chosen rubbish: it is refused, and the server goes on."""

import contextlib
import gzip
import json
import re
import socket

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import predict_pb2

from tests.export.serving.models import NAME, direct, encoded, images
from tests.export.serving.served import (
    assert_still_serving,
    b64,
    http_call,
    predict_path,
    predict_request,
    read_all,
)

FUZZING = settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
REFUSED = ("INVALID_ARGUMENT", "INTERNAL", "NOT_FOUND", "FAILED_PRECONDITION")
PREDICT = "PredictionService/Predict"
METHODS = (
    PREDICT,
    "PredictionService/GetModelMetadata",
    "ModelService/GetModelStatus",
)

# Bytes that parsers of messages have stumbled over: fields cut short, lengths
# beyond the end, numbers without an end, groups, nesting, wrong types.
MESSAGES = {
    "cut": b"\x0a",
    "length beyond the end": b"\x0a\xff\xff\xff\xff\x0f",
    "negative length": b"\x0a" + b"\xff" * 9 + b"\x01",
    "endless number": b"\x08" + b"\x80" * 300,
    "field 0": b"\x00\x00",
    "open groups": b"\x0b" * 500,
    "closing a group": b"\x0c",
    "unknown wire types": b"\x0f\x0e\x17",
    "a name that is no text": b"\x0a\x04\x0a\x02\xff\xfe",
    "unknown fields": b"\xfa\x3f\x03abc" * 50,
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "text": b"GET / HTTP/1.1\r\n\r\n",
}

# What is no HTTP, or should not be.
LINES = {
    "rubbish": bytes(range(256)) * 4,
    "zeros": bytes(5000),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "endless path": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
    "endless header": b"GET / HTTP/1.1\r\nx: " + b"a" * 200_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 50_000 + b"\r\n",
    "bad header": b"GET / HTTP/1.1\r\nhost: x\r\n\x00: \x01\r\n\r\n",
    "negative length": b"POST %s HTTP/1.1\r\nhost: x\r\n"
    b"content-length: -1\r\n\r\n",
    "two lengths": b"POST %s HTTP/1.1\r\nhost: x\r\n"
    b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}}",
    "bad chunk": b"POST %s HTTP/1.1\r\nhost: x\r\n"
    b"transfer-encoding: chunked\r\n\r\nZZ\r\n{}\r\n",
    "endless chunk": b"POST %s HTTP/1.1\r\nhost: x\r\n"
    b"transfer-encoding: chunked\r\n\r\n" + b"f" * 5000,
    "unknown encoding": b"POST %s HTTP/1.1\r\nhost: x\r\n"
    b"transfer-encoding: gzip\r\n\r\n{}",
}


@pytest.fixture(autouse=True)
def _still_serving(strict_server, caller):
    yield
    assert_still_serving(strict_server, caller)


@pytest.fixture(scope="module")
def server(strict_server):
    return strict_server


def ask_grpc(caller, data, method=PREDICT):
    """Returns the answer to any bytes; None if they are refused in order."""
    try:
        return caller.raw(data, method)
    except grpc.RpcError as error:
        code = error.code().name
    assert code in REFUSED
    return None


def ask_rest(server, body, headers=None):
    """Returns the answer to a request; None if it is refused in order."""
    status, answer = http_call(server, predict_path(), body, headers)
    if status == 200:
        return answer
    assert status in (400, 413)  # what is claimed may be too large
    assert answer["error"]
    return None


def send(port, content):
    """Sends bytes and returns the answer, up to the end of the connection."""
    address = ("127.0.0.1", port)
    with socket.create_connection(address, timeout=10) as connection:
        # It may be closed before everything is sent.
        with contextlib.suppress(OSError):
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_messages_that_are_none(caller, message):
    for method in METHODS:
        assert ask_grpc(caller, message, method) is None


@pytest.mark.parametrize("content", LINES.values(), ids=LINES)
def test_requests_that_are_no_http(server, content):
    if b"%s" in content:
        content %= predict_path().encode()
    answer = send(server.rest_port, content)
    if answer:
        assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501"))
    # Nor does it harm the port that speaks another protocol.
    send(server.grpc_port, content)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/%00",
        "/v1/models/%ff%fe:predict",
        "/v1/models/" + "a" * 5000,
        "/v1/models/screws:predict:predict",
        "/v1/models/screws/versions/-1",
        "/v1/models/screws/labels/:predict",
        "/v1//models/screws",
        "/v1/models/screws/versions/1/metadata/metadata",
    ],
)
def test_odd_paths(server, path):
    for body in (None, {"instances": [1]}):
        status, answer = http_call(server, path, body)
        assert status in (400, 404)
        assert answer["error"]


@FUZZING
@given(data=st.data())
def test_image_files_with_errors(server, data):
    """Refused, or the score that TensorFlow gives without a server."""
    name = data.draw(st.sampled_from(["PNG", "JPEG", "BMP", "GIF"]))
    file = bytearray(encoded(images(1)[0], name))
    for _ in range(data.draw(st.integers(0, 3))):
        position = data.draw(st.integers(0, len(file) - 1))
        file[position] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del file[data.draw(st.integers(1, len(file))) :]
    body = {"signature_name": "serving_bytes", "instances": [b64(bytes(file))]}
    answer = ask_rest(server, body)
    if answer is not None:
        outputs = direct("serving_bytes", image_bytes=[bytes(file)])
        score = answer["predictions"][0]["anomaly_score"]
        np.testing.assert_allclose(
            score, outputs["anomaly_score"][0], rtol=1e-3, atol=1e-3
        )


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["image", "image_bytes", "b64", "x"]), inner
        )
    ),
    max_leaves=8,
)


@FUZZING
@given(
    inputs=JSON,
    key=st.sampled_from(["instances", "inputs"]),
    signature=st.sampled_from(["serving_default", "serving_bytes"]),
)
def test_rest_with_any_values(server, inputs, key, signature):
    body = {"signature_name": signature, key: inputs}
    assert ask_rest(server, body) is None


@FUZZING
@given(content=st.binary(min_size=1, max_size=400))
def test_ports_with_any_bytes(server, content):
    assert ask_rest(server, content) is None
    for port in (server.rest_port, server.grpc_port):
        assert not send(port, content).startswith(b"HTTP/1.1 5")


@FUZZING
@given(data=st.binary(max_size=300), method=st.sampled_from(METHODS))
def test_grpc_with_any_bytes(caller, method, data):
    assert ask_grpc(caller, data, method) is None


@FUZZING
@given(position=st.integers(0, 60), value=st.integers(0, 255))
def test_grpc_with_a_wrong_byte(caller, position, value):
    """Where names, shapes and lengths are: refused, or still an answer."""
    message = bytearray(predict_request(image=images(1)).SerializeToString())
    message[position] = value
    answer = ask_grpc(caller, bytes(message))
    if answer is not None:
        response = predict_pb2.PredictResponse.FromString(answer)
        assert response.model_spec.name == NAME


# In the place of any value of a request.
VALUES = (
    "null", "true", "-1", "-1e20", "1e400", "NaN", "-Infinity", '""', '"x"',
    "[]", "{}", "[[]]", '{"b64": ""}', '{"b64": 1}', '"\\ud800"', "9" * 400,
    "[" * 50 + "]" * 50, "[" * 5000, "", ",", ":",
)  # fmt: skip
BODIES = [
    json.dumps({"signature_name": signature, key: rows})
    for signature, name, value in (
        ("serving_bytes", "image_bytes", b64(encoded(images(1)[0], "JPEG"))),
        ("serving_default", "image", np.round(images(1)[0], 2).tolist()),
    )
    for key, rows in (
        ("instances", [value]),
        ("instances", [{name: value}] * 3),
        ("inputs", {name: [value]}),
    )
]


@FUZZING
@given(data=st.data())
def test_good_requests_that_are_changed(server, data):
    text = data.draw(st.sampled_from(BODIES))
    for _ in range(data.draw(st.integers(0, 2))):
        tokens = list(re.finditer(r'"[^"]*"|-?[\d.]+|[\[\]{}:,]', text))
        if tokens := tokens[:40] + tokens[-10:]:
            token = data.draw(st.sampled_from(tokens))
            new = data.draw(st.sampled_from(VALUES))
            text = text[: token.start()] + new + text[token.end() :]
    body, headers = text.encode(), {}
    if data.draw(st.booleans()):
        body = gzip.compress(body)[: data.draw(st.sampled_from((9, None)))]
        headers["content-encoding"] = "gzip"
    status, answer = http_call(server, predict_path(), body, headers)
    if status == 200:
        rows = answer.get("predictions") or answer["outputs"]
        rows = rows if isinstance(rows, list) else [rows]
        scores = np.ravel([row["anomaly_score"] for row in rows])
        assert np.isfinite(scores).all()
    else:
        # The one error of the model itself: -1e20 is finite, its score is not.
        assert status < 500 or "is not finite" in answer["error"]
