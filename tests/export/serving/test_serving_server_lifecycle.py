"""Start, stop, and what is counted meanwhile."""

import threading
import time

import grpc
import pytest

from keras_sspcab.export.serving import Server, ServerOptions
from tests.export.serving.packaged import NAME
from tests.export.serving.served import (
    Gate,
    assert_same,
    b64,
    calling,
    code_of,
    direct,
    encoded,
    http_call,
    images,
    in_threads,
    metric,
    model_path,
    predict_path,
    predict_request,
    serve,
    wait_until,
)


def test_requests_under_way_are_answered(monkeypatch):
    batch = images(2)
    server = serve(drain_seconds=20).start()
    gate = Gate(monkeypatch)
    with calling(server) as caller, calling(server) as late:
        late.status()  # is connected already

        def stop():
            for _ in range(2):
                assert gate.entered.acquire(timeout=20)
            port = server.rest_port
            stopping = threading.Thread(target=server.stop)
            stopping.start()

            def is_refused():
                try:
                    late.status()
                except grpc.RpcError as error:
                    return error.code().name == "UNAVAILABLE"
                return False

            wait_until(is_refused)
            with pytest.raises(ConnectionRefusedError):
                wait_until(lambda: http_call(server, "/healthz") and False)
            assert stopping.is_alive()
            assert server.rest_port == port
            gate.open()
            stopping.join(20)
            return stopping.is_alive()

        by_grpc, by_rest, is_alive = in_threads(
            [
                lambda: caller.predict(predict_request(image=batch))[0],
                lambda: http_call(
                    server, predict_path(), {"inputs": batch.tolist()}
                ),
                stop,
            ]
        )
    assert is_alive is False
    expected = direct(image=batch)
    assert_same(by_grpc, expected)
    assert by_rest[0] == 200
    assert_same(by_rest[1]["outputs"], expected)


def test_stopping_does_not_wait_for_ever(monkeypatch):
    server = serve(drain_seconds=0.2, threads=1).start()
    gate = Gate(monkeypatch)
    with calling(server) as caller:

        def stop():
            assert gate.entered.acquire(timeout=20)
            start = time.monotonic()
            server.stop()
            gate.open()
            return time.monotonic() - start

        answer, seconds = in_threads(
            [lambda: caller.predict(predict_request(image=images(1))), stop]
        )
    assert seconds < 5
    assert isinstance(answer, grpc.RpcError)
    assert answer.code().name in ("CANCELLED", "UNAVAILABLE")


def test_nothing_is_left_of_a_server():
    before = {thread.name for thread in threading.enumerate()}
    server = serve().start()
    with calling(server) as caller:
        caller.predict(predict_request(image=images(1)))
    with pytest.raises(ValueError, match="has been started already"):
        server.start()
    ports = server.grpc_port, server.rest_port
    server.stop()
    server.stop()  # does no harm
    with pytest.raises(ValueError, match="has not been started"):
        server.rest_url  # noqa: B018

    def remaining():
        names = {thread.name for thread in threading.enumerate()} - before
        return [name for name in names if name.startswith("keras-sspcab")]

    wait_until(lambda: not remaining())
    # Its ports are free again.
    options = {"grpc_port": ports[0], "rest_port": ports[1]}
    with serve(**options) as server:
        assert (server.grpc_port, server.rest_port) == ports
        assert http_call(server, "/healthz")[0] == 200


def test_ports_that_are_taken_are_named():
    with serve() as server:
        for name in ("rest_port", "grpc_port"):
            port = getattr(server, name)
            with pytest.raises(OSError, match=f"cannot listen at.*:{port}"):
                serve(**{name: port}).start()
        assert http_call(server, "/healthz")[0] == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_batch_size", 0),
        ("max_queue", True),
        ("rest_port", 65536),
        ("timeout", float("nan")),
        ("poll_seconds", 0),
        ("drain_seconds", -1),
        ("threads", 0),
        ("versions", ()),
    ],
)
def test_options_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"`{name}`.*Received: {name}="):
        ServerOptions(**{name: value})


def test_there_must_be_a_model(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match="There is no model at"):
            Server(path).start()
    with pytest.raises(ValueError, match="no version of a model"):
        Server({"x": tmp_path}).start()


def test_one_saved_model_and_several_models():
    with serve(model_path() / "1") as server:
        assert http_call(server, f"/v1/models/{NAME}/versions/1")[0] == 200
    models = {"a": model_path(), "b": model_path(2)}
    with serve(models) as server, calling(server) as caller:
        for name, version in (("a", 1), ("b", 2)):
            outputs, spec = caller.predict(
                predict_request(name, image=images(2))
            )
            assert spec.version.value == version
            assert_same(outputs, direct(version=version, image=images(2)))


def test_metrics_count_what_was_sent():
    prefix = "keras_sspcab_"
    file = encoded(images(1)[0])
    bad = {"signature_name": "serving_bytes", "instances": [b64(b"none")]}
    good = {"signature_name": "serving_bytes", "instances": [b64(file)] * 2}
    with serve() as server, calling(server) as caller:
        start = time.perf_counter()
        for count in (1, 1, 3, 40):  # 40 rows are run as 32 and 8
            caller.predict(predict_request(image=images(count)))
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as error:
                caller.predict(predict_request(image=images(1)[:, :5]))
            assert code_of(error) == "INVALID_ARGUMENT"
        assert http_call(server, predict_path(), good)[0] == 200
        for _ in range(3):
            assert http_call(server, predict_path(), bad)[0] == 400
        assert http_call(server, predict_path("no"), good)[0] == 404
        caller.status()
        seconds = time.perf_counter() - start

        def requests(**labels):
            return metric(server, f"{prefix}requests_total", **labels)

        by_grpc = {"protocol": "grpc", "method": "Predict", "model": NAME}
        assert requests(**by_grpc, code="OK") == 4
        assert requests(**by_grpc, code="INVALID_ARGUMENT") == 2
        by_rest = {**by_grpc, "protocol": "rest"}
        assert requests(**by_rest, code="OK") == 1
        assert requests(**by_rest, code="INVALID_ARGUMENT") == 3
        assert requests(protocol="rest", code="NOT_FOUND", model="") == 1
        assert requests(method="GetModelStatus", code="OK") == 1
        assert requests() == 12

        rows = f"{prefix}batch_rows"
        assert metric(server, f"{rows}_count") == 6
        assert metric(server, f"{rows}_sum") == 1 + 1 + 3 + 40 + 2
        for limit, runs in ((1, 2), (2, 3), (4, 4), (8, 5), (32, 6)):
            bucket = metric(server, f"{rows}_bucket", le=f"{limit:.1f}")
            assert bucket == runs
        assert metric(server, f"{prefix}batch_requests_sum") == 6

        # Names that strangers make up are no labels.
        assert requests(model="no") == 0
        state = metric(server, f"{prefix}model_version_state", model=NAME)
        assert state == 30
        latency = f"{prefix}request_seconds"
        assert metric(server, f"{latency}_count", method="Predict") == 11
        assert 0 < metric(server, f"{latency}_sum") < seconds
