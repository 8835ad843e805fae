"""Random and chosen rubbish: refused in order, and the server goes on."""

import contextlib
import gzip
import socket

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import predict_pb2

from tests.export.serving.packaged import NAME
from tests.export.serving.served import (
    assert_still_serving,
    b64,
    code_of,
    direct,
    encoded,
    http_call,
    images,
    in_threads,
    predict_path,
    predict_request,
    serve,
)

FUZZING = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
REFUSED = {"INVALID_ARGUMENT", "INTERNAL", "NOT_FOUND", "FAILED_PRECONDITION"}
METHODS = (
    "PredictionService/Predict",
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


@pytest.fixture(scope="module")
def server():
    with serve(
        max_image_pixels=10_000, max_request_bytes=1 << 20, read_timeout=2
    ) as server:
        yield server


@pytest.fixture(autouse=True)
def _still_serving(server, caller):
    yield
    assert_still_serving(server, caller)


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_grpc_corpus(caller, message):
    for method in METHODS:
        with pytest.raises(grpc.RpcError) as error:
            caller.raw(message, method)
        assert code_of(error) in REFUSED


def send(port, content):
    """Sends bytes and returns the answer, up to the end of the connection."""
    answer = b""
    address = ("127.0.0.1", port)
    with socket.create_connection(address, timeout=10) as connection:
        # It may be closed before everything is sent.
        with contextlib.suppress(OSError):
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while part := connection.recv(1 << 16):
                answer += part
    return answer


@pytest.mark.parametrize("content", LINES.values(), ids=LINES)
def test_rest_corpus(server, content):
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
        "/v1/models/screws/versions/0x1",
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


def test_a_packed_body_is_not_unpacked(server):
    """A megabyte could unpack to a thousand."""
    body = gzip.compress(b'{"instances": [%s]}' % (b" " * (50 << 20)))
    headers = {"content-encoding": "gzip"}
    status, answer = http_call(server, predict_path(), body, headers)
    assert status == 400
    assert "Parse error" in answer["error"]


@FUZZING
@given(data=st.data())
def test_images_cut_and_changed(server, data):
    """Refused, or the score that TensorFlow gives without a server."""
    name = data.draw(st.sampled_from(["PNG", "JPEG", "BMP", "GIF"]))
    file = bytearray(encoded(images(1)[0], name))
    for _ in range(data.draw(st.integers(0, 3))):
        position = data.draw(st.integers(0, len(file) - 1))
        file[position] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del file[data.draw(st.integers(1, len(file))) :]
    body = {"signature_name": "serving_bytes", "instances": [b64(bytes(file))]}
    status, answer = http_call(server, predict_path(), body)
    if status == 200:
        outputs = direct("serving_bytes", image_bytes=[bytes(file)])
        score = answer["predictions"][0]["anomaly_score"]
        np.testing.assert_allclose(
            score, outputs["anomaly_score"][0], rtol=1e-3, atol=1e-3
        )
    else:
        assert status == 400
        assert answer["error"]


@FUZZING
@given(data=st.binary(max_size=300))
@pytest.mark.parametrize("method", METHODS)
def test_grpc_with_any_bytes(caller, method, data):
    with pytest.raises(grpc.RpcError) as error:
        caller.raw(data, method)
    assert code_of(error) in REFUSED


@FUZZING
@given(data=st.data())
def test_grpc_with_changed_messages(caller, data):
    """One byte of a real message is wrong: refused, or still an answer."""
    message = bytearray(predict_request(image=images(1)).SerializeToString())
    # Where names, shapes and lengths are, not in the pixels.
    position = data.draw(st.integers(0, 60))
    message[position] = data.draw(st.integers(0, 255))
    (found,) = in_threads(
        [lambda: caller.raw(bytes(message), "PredictionService/Predict")]
    )
    if isinstance(found, grpc.RpcError):
        assert found.code().name in REFUSED
    else:
        response = predict_pb2.PredictResponse.FromString(found)
        assert response.model_spec.name == NAME


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
    status, answer = http_call(server, predict_path(), body)
    assert status == 400
    assert answer["error"]


@FUZZING
@given(content=st.binary(min_size=1, max_size=400))
def test_ports_with_any_bytes(server, content):
    for port in (server.rest_port, server.grpc_port):
        answer = send(port, content)
        assert not answer.startswith(b"HTTP/1.1 5")


@FUZZING
@given(body=st.binary(min_size=1, max_size=200))
def test_rest_with_any_bytes(server, body):
    status, answer = http_call(server, predict_path(), body)
    assert status == 400
    assert answer["error"]
