"""Sends malformed requests to the embedded server, and counts the answers.

    python -m tests.export.serving.fuzzing repository NAME --requests 10000

The server runs in a process of its own. A request is a good one with a few
changes, by its number alone, so that any can be sent again. What counts as a
failure: no answer, an answer that is no JSON, a status of 500 and above, and a
score that is not a finite number.
"""

import argparse
import base64
import collections
import gzip
import http.client
import io
import json
import math
import pathlib
import random
import re
import subprocess
import sys
import time

import grpc
import numpy as np
from PIL import Image

# In the place of any value of a request.
_VALUES = (
    "null", "true", "-1", "1e20", "1e400", "NaN", "-Infinity", '""', '"x"',
    "[]", "{}", "[[]]", '{"b64": ""}', '{"b64": 1}', '"\\ud800"', "9" * 400,
    "[" * 50 + "]" * 50, "[" * 5000,
)  # fmt: skip
_CODES = ("INVALID_ARGUMENT", "INTERNAL", "NOT_FOUND", "FAILED_PRECONDITION")


class Fuzzer:
    """Changes good requests for one model of images."""

    def __init__(self, name: str, size: tuple[int, int], channels: int) -> None:
        self.path = f"/v1/models/{name}:predict"
        noise = np.random.default_rng(0).integers(0, 256, (*size, channels))
        pixels = np.squeeze(noise.astype("uint8"))
        self.files = []
        for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WebP"):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, kind)
            self.files.append(file.getvalue())
        self.image = np.round(noise / 255, 2).tolist()
        self.name = name.encode()

    def body(self, rng: random.Random) -> tuple[bytes, dict[str, str]]:
        """Returns a body and its headers."""
        file = bytearray(rng.choice(self.files))
        for _ in range(rng.choice((0, 0, 1, 3))):
            file[rng.randrange(len(file))] = rng.randrange(256)
        if rng.random() < 0.2:
            del file[rng.randrange(len(file)) :]
        encoded = {"b64": base64.b64encode(file).decode()}
        signature, name, value = rng.choice(
            (
                ("serving_bytes", "image_bytes", encoded),
                ("serving_default", "image", self.image),
            )
        )
        if rng.random() < 0.1:
            name = rng.choice(("image_bytes", "image", "x"))
        key = rng.choice(("instances", "inputs"))
        rows = [value] * rng.choice((1, 1, 3))
        if rng.random() < 0.5:
            rows = (
                [{name: row} for row in rows]
                if key == "instances"
                else {name: rows}
            )
        document = {"signature_name": signature, key: rows}
        text = json.dumps(document)
        for _ in range(rng.choice((0, 0, 1, 2))):
            tokens = list(re.finditer(r'"[^"]*"|-?[\d.]+|[\[\]{}:,]', text))
            token = rng.choice(tokens[:40] + tokens[-10:] if tokens else [None])
            if token is None:
                break
            new = rng.choice((*_VALUES, "", token[0] * 2, token[0] + ","))
            text = text[: token.start()] + new + text[token.end() :]
        body = text.encode("utf-8", "surrogatepass")
        headers = {"host": rng.choice(("localhost",) * 9 + ("evil.example",))}
        if rng.random() < 0.1:
            headers["content-encoding"] = rng.choice(("gzip", "br", "x"))
            if rng.random() < 0.7:
                body = gzip.compress(body)[: rng.choice((9, None))]
        return body, headers

    def message(self, rng: random.Random) -> bytes:
        """Returns a `PredictRequest` in the wire format, with wrong bytes."""

        def field(number: int, content: bytes) -> bytes:
            length, prefix = len(content), b""
            while length > 127:
                prefix += bytes([length & 127 | 128])
                length >>= 7
            return bytes([number << 3 | 2]) + prefix + bytes([length]) + content

        tensor = b"\x08\x07" + field(2, field(2, b"\x08\x01"))
        tensor += field(8, rng.choice(self.files))
        spec = field(1, self.name) + field(3, b"serving_bytes")
        pair = field(1, b"image_bytes") + field(2, tensor)
        message = bytearray(field(1, spec) + field(2, pair))
        for _ in range(rng.choice((1, 2, 5))):
            message[rng.randrange(rng.choice((80, len(message))))] = (
                rng.randrange(256)
            )
        if rng.random() < 0.2:
            del message[rng.randrange(len(message)) :]
        return bytes(message)


def judge(status: int, content: bytes) -> str:
    """Returns why an answer over REST is a failure; empty if it is none."""
    try:
        answer = json.loads(content, parse_constant=_refuse)
    except ValueError:
        return "no JSON"
    if status == 200:
        rows = answer.get("predictions") or answer.get("outputs")
        rows = rows if isinstance(rows, list) else [rows]
        scores = np.ravel([row["anomaly_score"] for row in rows])
        return "" if all(map(math.isfinite, scores)) else "no score"
    if not answer.get("error"):
        return "no message"
    # The one error of the model itself: 1e20 is finite, its score is not.
    is_known = status < 500 or "is not finite" in answer["error"]
    return "" if is_known else f"{status}: {answer['error'][:80]}"


def _refuse(text: str) -> None:
    raise ValueError(text)


def resident(pid: int) -> float:
    """MiB of a process in memory."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024


def fuzz(
    fuzzer: Fuzzer, rest_port: int, target: str, numbers: range
) -> tuple[collections.Counter[str], list[str]]:
    """Sends requests; returns the number of each answer, and failures."""
    counts: collections.Counter[str] = collections.Counter()
    failures = []
    connection = http.client.HTTPConnection("127.0.0.1", rest_port, timeout=60)
    with grpc.insecure_channel(target) as channel:
        predict = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict"
        )
        for number in numbers:
            rng = random.Random(number)
            if number % 4 == 0:
                try:
                    predict(fuzzer.message(rng), timeout=60)
                    counts["gRPC OK"] += 1
                except grpc.RpcError as error:
                    code = error.code().name
                    counts[f"gRPC {code}"] += 1
                    if code not in _CODES or "failed on" in error.details():
                        failures.append(f"{number}: {code} {error.details()}")
                continue
            body, headers = fuzzer.body(rng)
            # A connection that was idle for too long may have been closed.
            for attempt in range(2):
                try:
                    connection.request("POST", fuzzer.path, body, headers)
                    response = connection.getresponse()
                    status, content = response.status, response.read()
                    break
                except (OSError, http.client.HTTPException) as error:
                    connection.close()
                    if attempt == 1:
                        failures.append(f"{number}: no answer, {error!r}")
                        status, content = 0, b'{"error": "none"}'
            counts[f"REST {status}"] += 1
            if problem := judge(status, content):
                failures.append(f"{number}: {problem}")
    connection.close()
    return counts, failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository")
    parser.add_argument("name")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=1)
    options = parser.parse_args()
    fuzzer = Fuzzer(options.name, (options.size,) * 2, options.channels)
    command = [sys.executable, "-m", "keras_sspcab.cli", "serve"]
    command += [options.repository, "--grpc-port=0", "--rest-port=0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            lines = iter(process.stdout.readline, "")
            port = next(line for line in lines if "REST" in line)
            target = next(line for line in lines if "gRPC" in line).split()[-1]
            rest_port = int(port.rsplit(":", 1)[1])
            end = options.first + options.requests
            quarter = options.first + options.requests // 4
            start = time.monotonic()
            counts, failures = fuzz(
                fuzzer, rest_port, target, range(options.first, quarter)
            )
            before = resident(process.pid)
            more = fuzz(fuzzer, rest_port, target, range(quarter, end))
            growth = resident(process.pid) - before
            is_alive = process.poll() is None
        finally:
            process.terminate()
    counts.update(more[0])
    failures += more[1]
    for answer, count in sorted(counts.items()):
        print(f"{answer:24} {count:7}")
    print(f"{len(failures)} failures, server alive: {is_alive}")
    print(f"memory after the first quarter: {growth:+.0f} MiB")
    print(f"{time.monotonic() - start:.0f} s")
    for failure in failures[:20]:
        print(failure)


if __name__ == "__main__":
    main()
