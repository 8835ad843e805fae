"""What the tests of serving share: one server, one repository."""

import pytest


@pytest.fixture(scope="session")
def server():
    """An embedded server of `model_path()`, with ordinary options."""
    from tests.export.serving.served import serve

    with serve(labels={"stable": 1}) as server:
        yield server


@pytest.fixture(scope="module")
def caller(server):
    """A client of the `server` of the test's module."""
    from tests.export.serving.served import GrpcCaller

    caller = GrpcCaller(server)
    with caller.channel:
        yield caller


@pytest.fixture(scope="session")
def packaged_result(tmp_path_factory):
    """The result of packaging one version; for reading only."""
    from tests.export.serving.models import package

    return package(tmp_path_factory.mktemp("repositories") / "repository")


@pytest.fixture(scope="session")
def directory(packaged_result):
    """A repository with one version; for reading only."""
    return packaged_result.path.parents[2]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """The files of a certificate for localhost, and of its key."""
    from tests.export.serving.served import make_certificate

    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def secure_server(certificate):
    """A server with TLS and a token."""
    from tests.export.serving.served import TOKEN, serve

    file, key = certificate
    with serve(tls_certificate=file, tls_key=key, token=TOKEN) as server:
        yield server


@pytest.fixture(scope="session")
def strict_server():
    """A server with small limits, which is attacked."""
    from tests.export.serving.served import serve

    with serve(
        max_image_pixels=10_000, max_request_bytes=1 << 20, read_timeout=2
    ) as server:
        yield server
