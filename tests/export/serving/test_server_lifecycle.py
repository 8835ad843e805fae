"""Start, stop, and what is counted meanwhile."""

import shutil
import threading
import time

import grpc
import pytest

from keras_sspcab.export.serving import Server, ServerOptions
from tests.export.serving.models import (
    NAME,
    add_version,
    assert_same,
    direct,
    encoded,
    images,
    model_path,
)
from tests.export.serving.served import (
    Gate,
    b64,
    calling,
    connected,
    http_call,
    in_threads,
    metric,
    predict_path,
    predict_request,
    read_all,
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

            def is_closed():
                try:
                    http_call(server, "/healthz")
                except ConnectionRefusedError:
                    return True
                except ConnectionError:  # in the port's queue as it closed
                    pass
                return False

            wait_until(is_refused)
            wait_until(is_closed)
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


def test_stopping_does_not_wait_for_ever(monkeypatch, caplog):
    """What cannot be finished is told so: running, waiting or half sent."""
    server = serve(drain_seconds=0.2, threads=1).start()
    gate = Gate(monkeypatch)
    body = {"inputs": images(1).tolist()}
    half = (
        f"POST {predict_path()} HTTP/1.1\r\nhost: localhost\r\n"
        "content-length: 1000\r\n\r\n{"
    ).encode()
    with calling(server) as caller, connected(server) as connection:
        connection.sendall(half)

        def stop():
            assert gate.entered.acquire(timeout=20)
            wait_until(
                lambda: metric(server, "keras_sspcab_pending_requests") == 3
            )
            start = time.monotonic()
            server.stop()
            gate.open()
            return time.monotonic() - start

        failure, *answers, seconds = in_threads(
            [
                lambda: caller.predict(predict_request(image=images(1))),
                lambda: http_call(server, predict_path(), body),
                lambda: http_call(server, predict_path(), body),
                stop,
            ]
        )
        assert read_all(connection).startswith(b"HTTP/1.1 503")
    assert seconds < 5
    assert isinstance(failure, grpc.RpcError)
    assert failure.code().name == "UNAVAILABLE"
    for status, answer in answers:
        assert status == 503
        assert answer == {"error": "The server is stopping."}
    # Not even in the log.
    assert "Traceback" not in caplog.text
    assert not caplog.records


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
    (tmp_path / "models.config").touch()
    with pytest.raises(ValueError, match="names no models"):
        Server(tmp_path).start()


def test_one_saved_model_and_several_models(tmp_path):
    with serve(model_path() / "1") as server:
        assert http_call(server, f"/v1/models/{NAME}/versions/1")[0] == 200
    saved_model = shutil.copytree(model_path() / "1", tmp_path / "one" / "nuts")
    with serve(saved_model) as server:
        assert http_call(server, "/v1/models/nuts/versions/1")[0] == 200
    for name, version in (("a", 1), ("b", 2)):
        add_version(tmp_path / "models" / name, version, version)
    with serve(tmp_path) as server, calling(server) as caller:
        for name, version in (("a", 1), ("b", 2)):
            outputs, spec = caller.predict(
                predict_request(name, image=images(2))
            )
            assert spec.version.value == version
            assert_same(outputs, direct(version=version, image=images(2)))


def test_metrics_count_what_was_sent():
    file = encoded(images(1)[0])
    bad = {"signature_name": "serving_bytes", "instances": [b64(b"none")]}
    good = {"signature_name": "serving_bytes", "instances": [b64(file)] * 2}
    with serve() as server, calling(server) as caller:
        for count in (1, 1, 3, 40):  # 40 rows are run as 32 and 8
            outputs, _ = caller.predict(predict_request(image=images(count)))
            assert_same(outputs, direct(image=images(count)))
        with pytest.raises(grpc.RpcError):
            caller.predict(predict_request(image=images(1)[:, :5]))
        assert http_call(server, predict_path(), good)[0] == 200
        assert http_call(server, predict_path(), bad)[0] == 400
        assert http_call(server, predict_path("no"), good)[0] == 404
        caller.status()

        def value(name, **labels):
            return metric(server, f"keras_sspcab_{name}", **labels)

        for protocol, model, code, count in (
            ("grpc", NAME, "OK", 4),
            ("grpc", NAME, "INVALID_ARGUMENT", 1),
            ("rest", NAME, "OK", 1),
            ("rest", NAME, "INVALID_ARGUMENT", 1),
            # Names that strangers make up are no labels.
            ("rest", "", "NOT_FOUND", 1),
            ("rest", "no", "NOT_FOUND", 0),
        ):
            labels = {"protocol": protocol, "model": model, "code": code}
            requests = value("requests_total", method="Predict", **labels)
            assert requests == count, labels
        assert value("requests_total", method="GetModelStatus") == 1
        assert value("request_seconds_count", method="Predict") == 8
        assert value("batch_rows_count") == 6
        assert value("batch_rows_sum") == 1 + 1 + 3 + 40 + 2
        for limit, runs in ((1, 2), (2, 3), (4, 4), (8, 5), (32, 6)):
            assert value("batch_rows_bucket", le=f"{limit:.1f}") == runs
        assert value("batch_requests_sum") == 6
        assert value("model_version_state", model=NAME) == 30
