"""Token and TLS, from the client to the embedded server."""

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
from tests.export.serving.served import TOKEN, direct, images


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def target(kind, server):
    return server.grpc_target if kind == "grpc" else server.rest_url


def test_token_and_certificate(kind, secure_server, certificate):
    with make_client(
        kind,
        target(kind, secure_server),
        token=TOKEN,
        tls_ca=certificate[0],
    ) as client:
        client.wait_until_ready(timeout=20)
        check(client.predict(images(1)), direct(image=images(1)))


@pytest.mark.parametrize("token", [None, "another-token"])
def test_wrong_token(kind, secure_server, certificate, token):
    with make_client(
        kind,
        target(kind, secure_server),
        token=token,
        tls_ca=certificate[0],
    ) as client:
        for ask in (client.status, client.wait_until_ready):
            with pytest.raises(ServingClientError) as error:
                ask()
            assert error.value.code == "UNAUTHENTICATED"
            assert not error.value.retriable


def test_certificates_of_strangers(kind, secure_server):
    # The system does not trust it.
    with make_client(
        kind, target(kind, secure_server), token=TOKEN, tls=True, timeout=10
    ) as client:
        with pytest.raises(ServingClientError) as error:
            client.status()
        assert error.value.code == "UNAVAILABLE"
        assert not error.value.retriable
        assert "certificate" in error.value.message.lower()


def test_credentials_of_ones_own(secure_server, certificate):
    file = certificate[0]
    for address, credentials in (
        (
            secure_server.grpc_target,
            grpc.ssl_channel_credentials(file.read_bytes()),
        ),
        (secure_server.rest_url, ssl.create_default_context(cafile=file)),
    ):
        with Client(
            address, model=NAME, token=TOKEN, credentials=credentials
        ) as client:
            assert client.status()[0].is_available


def test_neither_keras_nor_tensorflow_is_imported(server):
    code = """
        import sys

        import numpy as np
        from keras_sspcab.export import Client

        for target in sys.argv[1:]:
            with Client(target, model="screws") as client:
                images = np.full((3, 32, 32, 1), 0.25, "float32")
                print(len(client.predict(images)), client.protocol)
        unwanted = {"keras", "tensorflow", "tensorflow_serving"}
        print(unwanted & set(sys.modules))
        sys.modules["grpc"] = None
        try:
            Client("localhost:8500", model="screws")
        except ImportError as error:
            print(error)
    """
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(code),
            server.grpc_target,
            server.rest_url,
        ],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parents[3],
        check=False,
    )
    assert result.returncode == 0, result.stderr
    by_grpc, by_rest, imported, message = result.stdout.strip().splitlines()
    assert (by_grpc, by_rest) == ("3 grpc", "3 rest")
    assert imported == "set()"
    assert 'pip install "keras-sspcab[transport]"' in message
