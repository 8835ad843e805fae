"""Slow clients, too many of them, and those that go away."""

import asyncio
import contextlib
import json
import re
import socket
import threading
import time

import grpc
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.responses import FileResponse
from starlette.routing import Route

from keras_sspcab.export.serving.server.errors import ServingError
from keras_sspcab.export.serving.server.limits import Limits
from keras_sspcab.export.serving.server.options import ServerOptions
from keras_sspcab.export.serving.server.web import create_web_server, listen
from tests.export.serving.models import assert_same, direct, images
from tests.export.serving.served import (
    Gate,
    assert_still_serving,
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
    wait_until,
)

HEAD = (
    f"POST {predict_path()} HTTP/1.1\r\nhost: localhost\r\n"
    "content-length: 1000\r\n\r\n"
).encode()


def ask(server, rows=1):
    body = {"inputs": images(rows).tolist()}
    return http_call(server, predict_path(), body)


def pending(server):
    return metric(server, "keras_sspcab_pending_requests")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b""),
        (HEAD[:20], b""),
        (HEAD + b'{"instances": ', b"HTTP/1.1 408"),
    ],
)
def test_rest_does_not_wait_for_slow_clients(sent, status):
    """Neither for heads nor for bodies; nor does a byte now and then help."""
    with serve(read_timeout=0.5) as server, connected(server) as connection:
        connection.sendall(sent)
        start = time.monotonic()
        done = threading.Event()

        def drip():
            with contextlib.suppress(OSError):
                while sent and not done.wait(0.1):
                    connection.sendall(b" ")

        thread = threading.Thread(target=drip)
        thread.start()
        # Meanwhile, others are served.
        assert ask(server)[0] == 200
        answer = read_all(connection)
        done.set()
        thread.join()
        assert 0.3 < time.monotonic() - start < 10
        assert answer.startswith(status)
        assert (b"did not come in time" in answer) == bool(status)
        with calling(server) as caller:
            assert_still_serving(server, caller)


def test_grpc_does_not_wait_for_slow_clients():
    with serve(read_timeout=0.3) as server, calling(server) as caller:
        call = caller.channel.stream_unary(
            "/tensorflow.serving.PredictionService/Predict"
        )
        done = threading.Event()

        def nothing():
            done.wait(20)
            yield b""

        with pytest.raises(grpc.RpcError) as error:
            call(nothing(), timeout=20)
        done.set()
        assert code_of(error) == "DEADLINE_EXCEEDED"
        assert "did not come in time" in error.value.details()
        assert_still_serving(server, caller)


def test_answers_that_are_not_read_are_dropped():
    """A client asks for megabytes and reads none of them."""
    body = json.dumps({"inputs": np.full((500, 32, 32, 1), 0.5).tolist()})
    head = HEAD.replace(b"1000", str(len(body)).encode())
    with serve(read_timeout=0.5) as server, calling(server) as caller:
        with connected(server) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            connection.sendall(head + body.encode())
            name = "keras_sspcab_requests_total"
            wait_until(lambda: metric(server, name, method="Predict") == 1)
            time.sleep(1.2)
            answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 200")
        length = int(re.search(rb"content-length: (\d+)", answer)[1])
        # The rest of it is not there any more.
        assert length > 3 << 20
        assert len(answer) < length
        assert_still_serving(server, caller)


def test_files_that_are_not_read_are_dropped(tmp_path):
    """They are dropped even if the client, which never reads, sends a byte."""
    file = tmp_path / "clip"
    file.write_bytes(bytes(50_000_000))

    async def respond(_):
        return FileResponse(file)

    options = ServerOptions(rest_port=0, read_timeout=0.5)
    server = create_web_server(Starlette(routes=[Route("/", respond)]), options)
    listener = listen(options)
    thread = threading.Thread(
        target=lambda: asyncio.run(server.serve(sockets=[listener]))
    )
    thread.start()
    with socket.create_connection(listener.getsockname()) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        wait_until(lambda: server.server_state.connections)
        time.sleep(0.2)
        connection.sendall(b"G")
        wait_until(lambda: not server.server_state.connections)
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize(
    ("options", "rows", "count"),
    [({"max_queue": 3}, 1, 3), ({"max_pending_bytes": 40_000}, 8, 1)],
)
def test_waiting_requests_have_limits(monkeypatch, options, rows, count):
    """Of their number, and of their bytes."""
    with serve(threads=1, **options) as server, calling(server) as caller:
        gate = Gate(monkeypatch)
        request = predict_request(image=images(rows))

        def good():
            return caller.predict(request)[0]

        def check():
            wait_until(lambda: pending(server) == count)
            with pytest.raises(grpc.RpcError) as error:
                good()
            assert code_of(error) == "RESOURCE_EXHAUSTED"
            status, answer = ask(server, rows)
            assert status == 503
            assert "Try again later" in answer["error"]
            # Who asks how the server is still gets an answer.
            assert http_call(server, "/healthz")[0] == 200
            gate.open()

        *answers, failure = in_threads([good] * count + [check])
        assert failure is None
        for outputs in answers:
            assert_same(outputs, direct(image=images(rows)))
        assert_still_serving(server, caller)


def test_the_time_to_answer_has_a_limit(monkeypatch):
    """That of the server, or the shorter one of the client."""
    with serve(timeout=0.8, threads=1) as server, calling(server) as caller:
        gate = Gate(monkeypatch)
        request = predict_request(image=images(1))
        for timeout in (20, 0.2):
            start = time.monotonic()
            with pytest.raises(grpc.RpcError) as error:
                caller.predict(request, timeout=timeout)
            assert code_of(error) == "DEADLINE_EXCEEDED"
            assert time.monotonic() - start < 5
        status, answer = ask(server)
        assert status == 504
        assert "no answer after 0.8 seconds" in answer["error"]
        wait_until(lambda: pending(server) == 0)
        gate.open()
        # The first run of a model may itself take longer than that.
        wait_until(lambda: ask(server)[0] == 200)
        assert_still_serving(server, caller)


def test_requests_of_clients_that_have_gone_are_dropped(monkeypatch):
    with serve(threads=1) as server, calling(server) as caller:
        gate = Gate(monkeypatch)
        futures = [
            caller.prediction.Predict.future(predict_request(image=images(1)))
            for _ in range(5)
        ]
        assert gate.entered.acquire(timeout=20)
        wait_until(lambda: pending(server) == 5)
        for future in futures:
            future.cancel()
        wait_until(lambda: pending(server) == 0)
        gate.open()
        assert_still_serving(server, caller)
        # Of those that had not begun, none has been run.
        assert metric(server, "keras_sspcab_batch_requests_sum") == 2
        name = "keras_sspcab_requests_total"
        assert metric(server, name, code="CANCELLED") == 5


def test_the_number_of_connections_has_a_limit():
    def ask_health():
        with connected(server) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(
                    b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n"
                    b"connection: close\r\n\r\n"
                )
            return read_all(connection)

    with serve(max_connections=4) as server, contextlib.ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(connected(server))
            connection.sendall(HEAD[:20])
        wait_until(lambda: ask_health().startswith(b"HTTP/1.1 503"))
        stack.close()
        wait_until(lambda: ask_health().startswith(b"HTTP/1.1 200"))


# Memory is given in turn, and returned whatever happens.


def run(scenario, **options):
    asyncio.run(scenario(Limits(ServerOptions(**options))))


def test_memory_is_given_in_turn():
    async def scenario(limits):
        await limits.take_memory(80)
        order = []

        async def take(name, size):
            async with limits.memory(size):
                order.append(name)

        large = asyncio.create_task(take("large", 60))
        small = asyncio.create_task(take("small", 10))
        await asyncio.sleep(0)
        # There is room for the small one, but the large one came first.
        assert order == []
        limits.return_memory(80)
        await asyncio.gather(large, small)
        assert order == ["large", "small"]
        assert limits.work_bytes == 0

    run(scenario, max_work_bytes=100)


def test_who_holds_memory_can_write_the_answer():
    """Otherwise it would deadlock with a request that waits for memory."""

    async def scenario(limits):
        async with limits.memory(60):
            waiting = asyncio.create_task(limits.take_memory(60))
            await asyncio.sleep(0)
            async with asyncio.timeout(5):
                await limits.take_memory(0)
        await waiting
        assert limits.work_bytes == 60

    run(scenario, max_work_bytes=100)


def test_what_never_fits_is_refused():
    async def scenario(limits):
        with pytest.raises(ServingError, match="Send fewer rows") as error:
            await limits.take_memory(101)
        assert error.value.http == 413

    run(scenario, max_work_bytes=100)


def test_who_goes_away_leaves_memory_to_others():
    async def scenario(limits):
        await limits.take_memory(100)
        tasks = [asyncio.create_task(limits.take_memory(100)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()  # while it waits
        await asyncio.sleep(0)
        limits.return_memory(100)
        tasks[1].cancel()  # when it has just been given memory
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [True, True, False]
        assert limits.work_bytes == 100

    run(scenario, max_work_bytes=100)
