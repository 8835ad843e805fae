"""Bodies that are small to send and large to read, and other odd ones."""

import base64
import gzip
import http.client
import json
import socket
import subprocess
import sys
import time
import zlib

import grpc
import numpy as np
import pytest

from keras_sspcab.export.serving.server.errors import ServingError
from keras_sspcab.export.serving.server.images import count_pixels
from keras_sspcab.export.serving.server.json_tensors import (
    JsonRequest,
    memory_needed,
)
from tests.export.serving.models import (
    NAME,
    assert_same,
    direct,
    encoded,
    images,
)
from tests.export.serving.served import (
    assert_still_serving,
    b64,
    calling,
    code_of,
    connected,
    http_call,
    in_threads,
    metric,
    predict_path,
    predict_request,
    read_all,
    serve,
)
from tests.export.serving.test_server_protocol import outputs_of

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _still_serving(server, caller):
    yield
    assert_still_serving(server, caller)
    assert metric(server, "keras_sspcab_work_bytes") == 0


def post(server, body, **headers):
    headers = {k.replace("_", "-"): v for k, v in headers.items()}
    return http_call(server, predict_path(), body, headers)


def files_body(*texts):
    rows = [{"image_bytes": {"b64": text}} for text in texts]
    return {"signature_name": "serving_bytes", "instances": rows}


def repeated(item, size):
    """A body with an item as often as fits into a number of bytes."""
    count = size // (len(item) + 1)
    return b'{"instances":[%s]}' % b",".join([item] * count)


BOMBS = {
    "objects": b"{}",
    "lists": b"[]",
    "lists in lists": b"[[[]]]",
    "keys": b'{"":0}',
    "texts": b'"ab"',
    "numbers": b"1.5",
    "whole numbers": b"0",
}


@pytest.mark.parametrize("name", ["objects", "lists in lists", "numbers"])
def test_bodies_that_grow_in_memory_are_not_parsed(name, monkeypatch):
    """Eight at a time; others are answered meanwhile."""
    parsed = []
    parse = JsonRequest.parse
    monkeypatch.setattr(
        JsonRequest, "parse", lambda body: parsed.append(body) or parse(body)
    )
    body = repeated(BOMBS[name], 4 * MIB)
    with serve(max_work_bytes=32 * MIB) as server:

        def attack():
            return post(server, body)

        def ask():
            start = time.monotonic()
            status, _ = post(server, {"inputs": images(1).tolist()})
            return status, time.monotonic() - start

        *answers, first, second = in_threads([attack] * 8 + [ask] * 2)
        assert http_call(server, "/healthz")[0] == 200
    for status, answer in answers:
        assert status == 413
        assert "is too large: it takes" in answer["error"]
    assert len(parsed) == 2  # those of `ask`
    for status, seconds in (first, second):
        assert status == 200
        assert seconds < 5


@pytest.mark.parametrize("item", BOMBS.values(), ids=BOMBS)
def test_memory_is_not_underestimated(item):
    """Measured on the values, without what the allocator adds."""

    def size_of(value):
        size = sys.getsizeof(value)
        if isinstance(value, dict):
            return size + sum(map(size_of, [*value, *value.values()]))
        if isinstance(value, list):
            return size + sum(map(size_of, value))
        return size

    body = repeated(item, 10_000)
    assert size_of(json.loads(body)) <= memory_needed(body)


def test_a_request_waits_for_memory_of_others():
    batch = images(8)
    body = {"inputs": batch.tolist()}
    needed = memory_needed(json.dumps(body).encode())
    with serve(max_work_bytes=needed + needed // 2) as server:
        answers = in_threads([lambda: post(server, body)] * 6)
        for status, answer in answers:
            assert status == 200
            assert_same(outputs_of(answer), direct(image=batch))
        with calling(server) as caller:
            assert_still_serving(server, caller)


def test_rows_are_counted_before_they_are_read(server, caller):
    dot = base64.b64encode(encoded(np.zeros((1, 2)))).decode()
    bodies = [
        files_body(*[dot] * 1025),
        {"signature_name": "serving_bytes", "inputs": [{"b64": dot}] * 1025},
        {"instances": [0] * 1025},
    ]
    for body in bodies:
        status, answer = post(server, body)
        assert status == 413
        assert "may have 1024 rows. Received: 1025" in answer["error"]
    request = predict_request(
        signature="serving_bytes", image_bytes=[encoded(images(1)[0])] * 1025
    )
    with pytest.raises(grpc.RpcError) as error:
        caller.predict(request)
    assert "1024 rows" in error.value.details()
    status, answer = post(server, files_body(*[dot] * 1024))
    assert (status, len(answer["predictions"])) == (200, 1024)


def field(number, content):
    """A field of a message, with its length in front."""
    length, prefix = len(content), b""
    while length > 127:
        prefix += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + prefix + bytes([length]) + content


def tensor_field(content):
    return field(2, field(1, b"image") + field(2, content))


MESSAGES = {
    "dimensions": lambda: tensor_field(field(2, b"\x12\x00" * 30_000)),
    "texts": lambda: tensor_field(field(8, b"") * 30_000),
    "variants": lambda: tensor_field(field(15, b"") * 30_000),
    "inputs": lambda: b"".join(
        field(2, field(1, b"%d" % i)) for i in range(20_000)
    ),
    "outputs": lambda: field(3, b"") * 30_000,
    "numbers one by one": lambda: tensor_field(b"\x2d\0\0\0\0" * 30_000),
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_messages_that_grow_in_memory_are_not_parsed(caller, message):
    with pytest.raises(grpc.RpcError) as error:
        caller.raw(message())
    assert code_of(error) == "INVALID_ARGUMENT"
    assert "20000 fields" in error.value.details()


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": [[]], "inputs": %s}',
        b'{"signature_name": "x", "inputs": %s, "signature_name": ""}',
        b'{"instances": [{"image": %s, "image": 1}]}',
    ],
)
def test_keys_that_come_twice_are_refused(server, body):
    status, answer = post(server, body % b"[[[[0.5]]]]")
    assert status == 400
    assert "comes twice" in answer["error"]


def test_colons_in_texts_are_no_keys(server):
    body = b'{"signature_name": "a:b:c", "inputs": 1}'
    status, answer = post(server, body)
    assert status == 400
    assert '"a:b:c" not found' in answer["error"]


@pytest.mark.parametrize("name", ["\ud800", "\U0001f600" * 3000, "x" * 10**6])
def test_errors_repeat_any_name_within_bounds(server, caller, name):
    body = json.dumps({"signature_name": name, "inputs": 1}).encode()
    status, answer = post(server, body)
    assert status == 400
    assert len(answer["error"]) < 2000
    if name.isprintable():
        with pytest.raises(grpc.RpcError) as error:
            caller.predict(predict_request(signature=name, image=images(1)))
        assert code_of(error) == "FAILED_PRECONDITION"


def test_gzip_and_lines_of_base64_are_answered(server):
    """As TensorFlow Serving answers them."""
    file = encoded(np.random.default_rng(0).random((50, 40)))
    expected = direct("serving_bytes", image_bytes=[file])
    plain = json.dumps(files_body(b64(file)["b64"])).encode()
    lines = base64.encodebytes(file).decode()
    assert lines.count("\n") > 5
    for body, headers in (
        (plain, {}),
        (gzip.compress(plain), {"content_encoding": "gzip"}),
        (gzip.compress(plain), {"content_encoding": "GZIP"}),
        (plain, {"content_encoding": "identity"}),
        (files_body(lines), {}),
        (files_body(lines.replace("\n", "\r\n")), {}),
    ):
        status, answer = post(server, body, **headers)
        assert status == 200
        assert_same(outputs_of(answer), expected)


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
def test_files_of_which_the_beginning_does_not_say_the_size(server, kind):
    """They take longer, and are read beside other requests."""
    pixels = np.random.default_rng(0).random((50, 40))
    file = encoded(pixels, kind)
    if kind == "PNG":
        text = b"\0\0\x08\0tEXt" + b"x\0".ljust(0x800, b"y")
        text += zlib.crc32(text[4:]).to_bytes(4, "big")
        file = file[:33] + text + file[33:]
    with pytest.raises(ServingError):
        count_pixels(np.array([file], object), 10**6, is_quick=True)
    status, answer = post(server, files_body(b64(file)["b64"]))
    assert status == 200
    plain = encoded(pixels)
    assert count_pixels(np.array([plain], object), 10**6, is_quick=True)
    assert_same(
        outputs_of(answer), direct("serving_bytes", image_bytes=[plain])
    )


def test_bodies_that_were_sent_once(server, faults, tmp_path):
    (tmp_path / "image.png").write_bytes(encoded(images(1)[0]))
    script = faults / "code" / "send_bodies.py"
    done = subprocess.run(
        [sys.executable, script, server.rest_url, NAME, tmp_path / "image.png"],
        capture_output=True,
        text=True,
        check=True,
    )
    scores = [line.split(" 200 ") for line in done.stdout.splitlines()]
    assert [title for title, _ in scores] == [
        "plain",
        "gzip",
        "base64 in lines of 76",
    ]
    assert len({score for _, score in scores}) == 1


@pytest.mark.parametrize(
    ("body", "encoding", "status", "message"),
    [
        (gzip.compress(b" " * (64 * MIB), mtime=0), "gzip", 413, "unpacked"),
        (gzip.compress(b"{}", mtime=0)[:-4], "gzip", 400, "no whole gzip file"),
        (gzip.compress(b"{}", mtime=0) * 2, "gzip", 400, "more than one"),
        (b"{}", "gzip", 400, "no gzip file"),
        (b"{}", "br", 415, "'br'"),
        (b"{}", "gzip, gzip", 415, "'gzip, gzip'"),
    ],
)
def test_compressed_bodies_are_refused(server, body, encoding, status, message):
    received, answer = post(server, body, content_encoding=encoding)
    assert (received, list(answer)) == (status, ["error"])
    assert message in answer["error"]


def test_answers_that_are_not_finite_are_errors(server, caller):
    batch = np.full((1, 32, 32, 1), -1e20, "float32")
    with pytest.raises(grpc.RpcError) as error:
        caller.predict(predict_request(image=batch))
    assert code_of(error) == "INTERNAL"
    assert "is not finite" in error.value.details()
    for body in ({"inputs": batch.tolist()}, {"instances": batch.tolist()}):
        status, answer = post(server, body)
        assert status == 500
        assert "is not finite" in answer["error"]


def exchange(server, content, is_all=False):
    """Sends bytes; returns all answers, up to the end of the connection."""
    with connected(server) as connection:
        connection.sendall(content)
        if is_all:
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def request_bytes(method, path, body=b"", **headers):
    lines = [f"{method} {path} HTTP/1.1", "host: localhost"]
    lines += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def test_requests_may_follow_each_other_without_waiting(server):
    body = json.dumps({"inputs": images(1).tolist()}).encode()
    ask = request_bytes("POST", predict_path(), body, content_length=len(body))
    status = request_bytes("GET", f"/v1/models/{NAME}")
    last = request_bytes("GET", "/healthz", connection="close")
    answer = exchange(server, (ask + status) * 5 + last)
    assert answer.count(b"HTTP/1.1 200") == 11
    assert answer.count(b"anomaly_score") == 5


def test_chunks_and_lengths_that_lie(server):
    body = json.dumps({"inputs": images(1).tolist()}).encode()
    parts = [body[i : i + 999] for i in range(0, len(body), 999)]
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port)
    connection.request("POST", predict_path(), iter(parts))
    response = connection.getresponse()
    assert response.status == 200
    assert "outputs" in json.load(response)
    connection.close()
    short = request_bytes("POST", predict_path(), body, content_length=100)
    # The rest is no request.
    assert exchange(server, short).count(b"HTTP/1.1 400") == 2
    long = request_bytes("POST", predict_path(), body, content_length=10**6)
    assert exchange(server, long, is_all=True) == b""


@pytest.mark.parametrize(
    "method", ["HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "BREW"]
)
def test_other_methods(server, method):
    answer = exchange(
        server, request_bytes(method, predict_path(), connection="close")
    )
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 405"))
    if method == "HEAD":
        assert answer.endswith(b"\r\n\r\n")
