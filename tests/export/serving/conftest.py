"""What tests of the embedded server share."""

import pytest


@pytest.fixture(scope="module")
def caller(server):
    """A client of the `server` of the test's module."""
    from tests.export.serving.served import GrpcCaller

    caller = GrpcCaller(server)
    with caller.channel:
        yield caller
