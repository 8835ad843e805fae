"""Token and TLS, from the client to the embedded server."""

import os
import pathlib
import ssl
import subprocess
import sys
import textwrap

import grpc
import pytest

from keras_sspcab.export import Client, ServingClientError
from tests.export.serving.conformance import KINDS, check, make_client
from tests.export.serving.packaged import NAME
from tests.export.serving.served import direct, images, serve

TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    command = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes",
        "-days", "2", "-subj", "/CN=localhost",
        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout", folder / "key.pem", "-out", folder / "certificate.pem",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def server(certificate):
    with serve(
        token=TOKEN,
        tls_certificate=certificate / "certificate.pem",
        tls_key=certificate / "key.pem",
    ) as server:
        yield server


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def target(kind, server):
    return server.grpc_target if kind.startswith("grpc") else server.rest_url


def test_token_and_certificate(kind, server, certificate):
    with make_client(
        kind,
        target(kind, server),
        token=TOKEN,
        tls_ca=certificate / "certificate.pem",
    ) as client:
        client.wait_until_ready(timeout=20)
        check(client.predict(images(1)), direct(image=images(1)))


@pytest.mark.parametrize("token", [None, "another-token"])
def test_wrong_token(kind, server, certificate, token):
    with make_client(
        kind,
        target(kind, server),
        token=token,
        tls_ca=certificate / "certificate.pem",
    ) as client:
        for ask in (client.status, client.wait_until_ready):
            with pytest.raises(ServingClientError) as error:
                ask()
            assert error.value.code == "UNAUTHENTICATED"
            assert not error.value.retriable


def test_certificates_of_strangers(kind, server):
    # The system does not trust it.
    with make_client(
        kind, target(kind, server), token=TOKEN, tls=True, timeout=10
    ) as client:
        with pytest.raises(ServingClientError) as error:
            client.status()
        assert error.value.code == "UNAVAILABLE"
        assert not error.value.retriable
        assert "certificate" in error.value.message.lower()


def test_credentials_of_ones_own(server, certificate):
    file = certificate / "certificate.pem"
    for address, credentials in (
        (server.grpc_target, grpc.ssl_channel_credentials(file.read_bytes())),
        (server.rest_url, ssl.create_default_context(cafile=file)),
    ):
        with Client(
            address, model=NAME, token=TOKEN, credentials=credentials
        ) as client:
            assert client.status()[0].is_available


def test_rest_needs_no_tensorflow():
    pytest.importorskip("jax")
    # NumPy is all that it computes with.
    code = """
        import sys

        for name in ("tensorflow", "tensorflow_serving", "grpc", "ray"):
            sys.modules[name] = None  # makes its import fail
        import numpy as np
        from keras_sspcab.export import Client
        from tests.export.serving.flaky_rest import Plan, rest_server

        plan = Plan()
        with rest_server(plan) as target:
            with Client(target, model="fake") as client:
                images = np.full((3, 2, 2, 1), 0.25, "float32")
                print([p.score for p in client.predict(images)])
        try:
            Client("localhost:8500", model="fake")
        except ImportError as error:
            print(error)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parents[3],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    scores, message = result.stdout.strip().splitlines()
    assert scores == "[1.0, 1.0, 1.0]"
    assert "grpc, tensorflow, tensorflow_serving" in message
    assert 'pip install "keras-sspcab[serve]"' in message
