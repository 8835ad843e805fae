"""Memory does not grow with requests, nor with versions."""

import ctypes
import gc
import pathlib
import re
import weakref

import grpc
import numpy as np
import pytest

from keras_sspcab.export.serving.server import grpc_service, rest
from keras_sspcab.export.serving.server.errors import forget_origin
from keras_sspcab.export.serving.server.versions import LoadedVersion
from tests.export.serving.models import NAME, add_version, encoded, images
from tests.export.serving.served import (
    b64,
    calling,
    http_call,
    predict_path,
    predict_request,
    serve,
    wait_until,
)

STATUS = pathlib.Path("/proc/self/status")


@pytest.fixture
def alive(monkeypatch):
    """The SavedModels that are in memory."""
    versions = weakref.WeakSet()
    load = LoadedVersion.__init__

    def tracked(self, *args, **kwargs):
        versions.add(self)
        load(self, *args, **kwargs)

    monkeypatch.setattr(LoadedVersion, "__init__", tracked)
    return versions


def test_old_versions_leave_the_memory(tmp_path, alive):
    def count():
        gc.collect()
        return len(alive)

    folder = tmp_path / NAME
    add_version(folder, 1)
    with serve(folder) as server, calling(server) as caller:
        request = predict_request(image=images(1))
        for version in (2, 3):
            caller.predict(request)
            add_version(folder, version, version=2 - version % 2)
            wait_until(
                lambda version=version: (
                    caller.predict(request)[1].version.value == version
                )
            )
        wait_until(lambda: count() == 1)
    wait_until(lambda: count() == 0)


@pytest.mark.parametrize(
    ("module", "name"),
    [(rest, "memory_needed"), (grpc_service, "read_tensors")],
)
def test_refused_requests_leave_the_memory_at_once(module, name, monkeypatch):
    """Not when garbage is next collected: they may be large."""

    class Held:
        """Stands for what is read of a request."""

    alive = weakref.WeakSet()
    read = []

    def refuse(*_):
        held = Held()
        alive.add(held)
        read.append(name)
        raise ValueError("refused")

    monkeypatch.setattr(module, name, refuse)
    gc.disable()
    try:
        with serve() as server, calling(server) as caller:
            with pytest.raises(grpc.RpcError):
                caller.predict(predict_request(image=images(1)[:, :3]))
            body = {"inputs": [1]}
            assert http_call(server, predict_path(), body)[0] >= 400
            assert read == [name]
            wait_until(lambda: not alive, seconds=5)
    finally:
        gc.enable()


def test_an_error_may_be_its_own_cause():
    error = ValueError("x")
    with pytest.raises(ValueError) as caught:
        raise error from error
    forget_origin(caught.value)
    assert error.__traceback__ is None


def resident():
    """Bytes of this process in memory, after what can be given back was."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    (kilobytes,) = re.findall(r"VmRSS:\s+(\d+) kB", STATUS.read_text())
    return int(kilobytes) << 10


@pytest.mark.skipif(
    not STATUS.is_file(), reason="needs Linux: /proc/self/status"
)
def test_memory_is_bounded():
    """Were their bodies kept, 192 requests would take over 70 MiB."""
    rng = np.random.default_rng(0)
    batch = images(64)  # 256 KiB
    large = encoded(rng.random((700, 700)), "BMP")  # 480 KiB
    too_large = encoded(rng.random((1100, 1000)), "BMP")  # 1 MiB, refused
    nan = np.full_like(batch, np.nan)
    zeros = encoded(np.zeros((9000, 9000)))  # a bomb of 81 megapixels
    text = '{"inputs": [' + "[" * 100_000

    def files(*contents):
        return {
            "signature_name": "serving_bytes",
            "instances": [b64(content) for content in contents],
        }

    with (
        serve(max_image_pixels=1_000_000, max_request_bytes=2 << 20) as server,
        calling(server) as caller,
    ):

        def ask(inputs):
            try:
                caller.predict(predict_request(image=inputs))
            except grpc.RpcError as error:
                return error.code().name
            return 200

        def post(body):
            return http_call(server, predict_path(), body)[0]

        mixed = [
            (lambda: ask(batch), 200),
            (lambda: ask(nan), "INVALID_ARGUMENT"),
            (lambda: post(files(large)), 200),
            (lambda: post(files(too_large)), 413),
            (lambda: post(files(zeros)), 413),
            (lambda: post(files(large[:-9])), 400),
            (lambda: post(text.encode()), 400),
            (lambda: post(b" " * (3 << 20)), 413),
        ]

        def run(times):
            for _ in range(times):
                for call, expected in mixed:
                    assert call() == expected

        run(6)
        before = resident()
        run(24)
        assert resident() - before < 40 << 20
