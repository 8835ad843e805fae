"""The embedded server, and plain clients of it."""

import base64
import concurrent.futures
import contextlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time

import grpc
import pytest
import tensorflow as tf
from prometheus_client.parser import text_string_to_metric_families
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from keras_sspcab.export.serving import Server, ServerOptions
from tests.export.serving.models import (
    NAME,
    assert_same,
    direct,
    images,
    model_path,
)

TOKEN = "correct-horse-battery"


def serve(models=None, **options):
    options = {"grpc_port": 0, "rest_port": 0, "poll_seconds": 0.05, **options}
    return Server(
        model_path() if models is None else models, ServerOptions(**options)
    )


def make_certificate(folder):
    """Returns the files of a certificate for localhost, and of its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = [
        "openssl", "req", "-x509", "-newkey", "ec",
        "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days=2",
        "-subj=/CN=localhost",
        "-addext=subjectAltName=DNS:localhost,IP:127.0.0.1",
        f"-keyout={key}", f"-out={certificate}",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def model_spec(name=NAME, version=None, label=None, signature=""):
    spec = {"name": name, "signature_name": signature, "version_label": label}
    if version is not None:
        spec["version"] = {"value": version}
    return spec


def predict_request(name=NAME, signature="", version=None, **inputs):
    return predict_pb2.PredictRequest(
        model_spec=model_spec(name, version, None, signature),
        inputs={k: tf.make_tensor_proto(v) for k, v in inputs.items()},
    )


class GrpcCaller:
    """Calls a server with the official stubs."""

    def __init__(self, server, channel=None):
        self.channel = channel or grpc.insecure_channel(server.grpc_target)
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(
            self.channel
        )
        self.model = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def predict(self, request, timeout=20, **options):
        response = self.prediction.Predict(request, timeout=timeout, **options)
        outputs = {
            key: tf.make_ndarray(value)
            for key, value in response.outputs.items()
        }
        return outputs, response.model_spec

    def metadata(self, name=NAME, fields=("signature_def",)):
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=model_spec(name), metadata_field=fields
        )
        return self.prediction.GetModelMetadata(request, timeout=20)

    def status(self, name=NAME, version=None, label=None):
        request = get_model_status_pb2.GetModelStatusRequest(
            model_spec=model_spec(name, version, label)
        )
        return self.model.GetModelStatus(request, timeout=20)

    def raw(self, data, method="PredictionService/Predict", **options):
        call = self.channel.unary_unary(f"/tensorflow.serving.{method}")
        return call(data, timeout=20, **options)


@contextlib.contextmanager
def calling(server):
    caller = GrpcCaller(server)
    with caller.channel:
        yield caller


def code_of(error):
    return error.value.code().name


def http_call(server, path, body=None, headers=None, certificate=None):
    """Returns status and content of an answer; JSON is parsed."""
    if certificate is None:
        connection = http.client.HTTPConnection(
            "127.0.0.1", server.rest_port, timeout=20
        )
    else:
        connection = http.client.HTTPSConnection(
            "localhost",
            server.rest_port,
            timeout=20,
            context=ssl.create_default_context(cafile=certificate),
        )
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    with contextlib.closing(connection):
        method = "GET" if body is None else "POST"
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        content = response.read()
    if response.headers.get_content_type() == "application/json":
        content = json.loads(content)
    return response.status, content


@contextlib.contextmanager
def connected(server):
    address = ("127.0.0.1", server.rest_port)
    with socket.create_connection(address, timeout=20) as connection:
        yield connection


def read_all(connection):
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            answer += part
    return answer


def predict_path(name=NAME, where=""):
    return f"/v1/models/{name}{where}:predict"


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def in_threads(functions):
    """Runs functions at once; returns their results or errors in order."""
    with concurrent.futures.ThreadPoolExecutor(len(functions)) as pool:
        futures = [pool.submit(function) for function in functions]
    return [future.exception() or future.result() for future in futures]


def wait_until(is_true, seconds=20):
    end = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.01)


class Gate:
    """Holds up all runs of models until it is opened."""

    def __init__(self, monkeypatch):
        from keras_sspcab.export.serving.server.signature import Signature

        self._open = threading.Event()
        self.entered = threading.Semaphore(0)
        run = Signature.run

        def wait_and_run(signature, inputs):
            self.entered.release()
            self._open.wait(30)
            return run(signature, inputs)

        monkeypatch.setattr(Signature, "run", wait_and_run)

    def open(self):
        self._open.set()


def metric(server, name, **labels):
    """Value of a metric, summed over what is not named."""
    _, text = http_call(server, "/metrics")
    return sum(
        sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def assert_still_serving(server, caller):
    """After whatever has happened: right answers, and nothing is held."""
    batch = images(2)
    outputs, _ = caller.predict(predict_request(image=batch))
    assert_same(outputs, direct(image=batch))

    def is_idle():
        return all(
            metric(server, f"keras_sspcab_{name}") == 0
            for name in ("pending_requests", "pending_bytes")
        )

    # Requests that have ended by a fault are put away a moment later.
    wait_until(is_idle)
