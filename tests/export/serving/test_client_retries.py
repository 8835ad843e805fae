"""Retries, pauses and deadlines, against servers that fail as planned."""

import asyncio
import base64
import contextlib
import pickle
import socket
import threading
import time

import numpy as np
import pytest

from keras_sspcab.export import (
    AsyncClient,
    Client,
    RetryPolicy,
    ServingClientError,
)
from tests.export.serving.conformance import KINDS
from tests.export.serving.fakes import Plan, fake_server

IMAGE = np.full((2, 2, 1), 0.25, "float32")  # of the score 1
QUICK = RetryPolicy(3, backoff=0.01)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@contextlib.contextmanager
def talking(kind, plan, **options):
    options = {"retries": QUICK, "timeout": 10, **options}
    with (
        fake_server(kind, plan) as target,
        Client(target, model="fake", protocol=kind, **options) as client,
    ):
        client.metadata()
        yield client


def refused(client, **options):
    with pytest.raises(ServingClientError) as error:
        client.predict(IMAGE, **options)
    return error.value


def test_temporary_failures_are_retried(kind):
    plan = Plan(["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
    with talking(kind, plan) as client:
        (prediction,) = client.predict(IMAGE)
    assert prediction.score == 1
    assert plan.attempts == 3


def test_no_more_retries_than_asked_for(kind):
    plan = Plan(["UNAVAILABLE"] * 9)
    with talking(kind, plan) as client:
        error = refused(client)
    assert (error.code, error.retriable) == ("UNAVAILABLE", True)
    assert "as planned" in error.message
    assert plan.attempts == 4
    with talking(kind, plan, retries=0) as client:
        assert refused(client).retriable
    assert plan.attempts == 5


@pytest.mark.parametrize(
    "code",
    ["INVALID_ARGUMENT", "UNAUTHENTICATED", "INTERNAL", "DEADLINE_EXCEEDED"],
)
def test_lasting_failures_are_not_retried(kind, code):
    plan = Plan([code])
    with talking(kind, plan) as client:
        error = refused(client)
    assert (error.code, error.retriable) == (code, False)
    assert str(error).startswith(f"{code}: as planned")
    assert plan.attempts == 1


@pytest.mark.parametrize(
    ("status", "code", "attempts"),
    [
        (413, "RESOURCE_EXHAUSTED", 1),
        (502, "UNAVAILABLE", 2),
        ("gone", None, 2),
        (302, "UNKNOWN", 1),
        (418, "UNKNOWN", 1),
    ],
)
def test_status_of_http(status, code, attempts):
    plan = Plan([status])
    with talking("rest", plan) as client:
        if attempts == 2:
            assert client.predict(IMAGE)[0].score == 1
        else:
            error = refused(client)
            assert (error.code, error.retriable) == (code, False)
            assert f"HTTP {status}" in error.message
    assert plan.attempts == attempts


@pytest.mark.parametrize(
    ("failures", "count", "message", "attempts"),
    [
        ([1.0], 1, "no answer after 0.4 seconds", (1, 1)),
        # All attempts share it; pauses are between 0.05 and 0.1 seconds,
        (["UNAVAILABLE"] * 99, 1, "UNAVAILABLE: as planned", (3, 9)),
        # and so do all requests.
        ([0.15] * 9, 9, "no answer after", (2, 4)),
    ],
    ids=["one", "attempts", "requests"],
)
def test_the_deadline_holds(kind, failures, count, message, attempts):
    plan = Plan(failures)
    policy = RetryPolicy(99, backoff=0.1, max_backoff=0.1)
    with talking(kind, plan, retries=policy, max_batch_size=1) as client:
        start = time.monotonic()
        with pytest.raises(ServingClientError, match=message) as error:
            client.predict([IMAGE] * count, timeout=0.4)
        assert time.monotonic() - start < 0.9
        plan.failures.clear()
    code = error.value.code, error.value.retriable
    assert code == ("DEADLINE_EXCEEDED", False)
    assert attempts[0] <= plan.attempts <= attempts[1]


def test_the_server_may_ask_for_a_longer_pause():
    plan = Plan(["UNAVAILABLE"])
    plan.retry_after = "1"
    with talking("rest", plan) as client:
        client.predict(IMAGE)
        assert 1 <= plan.times[1] - plan.times[0] < 2
        plan.failures.append("UNAVAILABLE")
        start = time.monotonic()
        # That pause would be too long.
        assert refused(client, timeout=0.9).code == "DEADLINE_EXCEEDED"
        assert time.monotonic() - start < 0.5
        # Dates are ignored.
        plan.retry_after = "Wed, 21 Oct 2099 07:28:00 GMT"
        plan.failures.append("UNAVAILABLE")
        client.predict(IMAGE, timeout=5)


def test_requests_are_split_and_results_stay_in_order(kind):
    plan = Plan(["UNAVAILABLE"])
    images = np.arange(7, dtype="float32")[:, None, None, None] / 8
    images = np.broadcast_to(images, (7, 2, 2, 1))
    with talking(kind, plan, max_batch_size=3) as client:
        scores = [p.score for p in client.predict(images)]
    assert scores == [i / 2 for i in range(7)]
    assert plan.rows == [3, 3, 3, 1]  # the first one twice


def test_wrong_inputs_are_not_sent():
    plan = Plan()
    with talking("rest", plan) as client:
        assert client.predict([]) == []
        assert client.predict(np.zeros((0, 2, 2, 1), "float32")) == []
        with pytest.raises(ServingClientError, match="INVALID_ARGUMENT"):
            client.predict([IMAGE, "no"])
    assert plan.attempts == 0


def test_a_model_that_takes_another_size_from_now_on():
    plan = Plan()
    with talking("rest", plan) as client:
        client.predict(IMAGE)
        plan.size = (-1, 3, 3, 1)
        assert client.predict(np.zeros((3, 3), "float32"))[0].score == 0


def test_the_proxy_of_the_system_is_used(monkeypatch):
    plan = Plan()
    with fake_server("rest", plan) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", "b.invalid")
        for host, is_proxied in (("a.invalid", True), ("b.invalid", False)):
            with Client(f"http://{host}", model="fake", retries=0) as client:
                if is_proxied:
                    assert client.predict(IMAGE)[0].score == 1
                else:
                    assert refused(client).code == "UNAVAILABLE"


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_a_proxy_is_told_the_user(monkeypatch, scheme):
    plan = Plan()
    with fake_server("rest", plan) as proxy:
        address = proxy.removeprefix("http://")
        monkeypatch.setenv("http_proxy", f"{scheme}me:p%40ss@{address}")
        with Client("http://a.invalid", model="fake", retries=0) as client:
            assert client.predict(IMAGE)[0].score == 1
    expected = base64.b64encode(b"me:p@ss").decode()
    assert set(plan.proxy_users) == {f"Basic {expected}"}


def test_a_proxy_of_another_kind_is_refused(monkeypatch):
    monkeypatch.setenv("http_proxy", "socks5://me:secret@gate:1080")
    with pytest.raises(ValueError, match="socks5://gate:1080") as error:
        Client("http://a.invalid", model="fake")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("user", "sent"),
    [("me:p%40ss", b"me:p@ss"), ("p%40ss", b"p@ss:")],
    ids=["both", "no password"],
)
def test_the_user_of_a_url_is_sent_and_not_shown(user, sent):
    plan = Plan()
    with fake_server("rest", plan) as url:
        target = url.replace("://", f"://{user}@")
        with Client(target, model="fake") as client:
            client.predict(IMAGE)
            assert "p%40ss" not in repr(client)
            assert "p@ss" not in repr(client)
    assert plan.tokens == [f"Basic {base64.b64encode(sent).decode()}"]


def test_the_token_is_sent_and_not_shown(kind):
    plan = Plan()
    for token in (None, "a-good-secret"):
        with talking(kind, plan, token=token) as client:
            client.predict(IMAGE)
            assert "secret" not in repr(client)
    assert plan.tokens == [None, "Bearer a-good-secret"]


def test_the_deadline_holds_for_an_answer_that_trickles():
    gone = threading.Event()

    def trickle(listener):
        connection, _ = listener.accept()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
        with connection, contextlib.suppress(OSError):
            connection.sendall(head)
            for _ in range(100):
                connection.sendall(b" ")
                if gone.wait(0.05):
                    break

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=trickle, args=(listener,))
        thread.start()
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        with Client(target, model="fake", protocol="rest") as client:
            start = time.monotonic()
            with pytest.raises(ServingClientError, match="DEADLINE_EXCEEDED"):
                client.status(timeout=0.3)
            assert time.monotonic() - start < 1
        gone.set()
        thread.join()


def test_the_deadline_holds_for_an_answer_that_stalls():
    gone = threading.Event()

    def stall(listener):
        connection, _ = listener.accept()
        with connection:
            gone.wait(0.7)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")
            gone.wait(10)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=stall, args=(listener,))
        thread.start()
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        with Client(target, model="fake", protocol="rest") as client:
            start = time.monotonic()
            with pytest.raises(ServingClientError, match="DEADLINE_EXCEEDED"):
                client.status(timeout=1.0)
            assert time.monotonic() - start < 1.5
        gone.set()
        thread.join()


def test_a_forked_process_has_connections_of_its_own(monkeypatch):
    with talking("rest", Plan()) as client:
        pool = client._transport._own_pool()
        assert client._transport._own_pool() is pool
        # As after a fork, without one: TensorFlow's threads would not live.
        monkeypatch.setattr("os.getpid", lambda: -1)
        (prediction,) = client.predict(IMAGE)
        assert prediction.score == 1
        assert client._transport._own_pool() is not pool


def test_outputs_that_a_newer_version_has(kind):
    plan = Plan()
    with talking(kind, plan) as client:
        client.predict(IMAGE)
        plan.outputs = {"product_index": np.array([4], "int32")}
        assert client.predict(IMAGE)[0].outputs["product_index"] == 4
        (prediction,) = client.predict(IMAGE)
        assert prediction.outputs["product_index"].dtype == "int32"
        plan.outputs = {}
        assert client.predict(IMAGE)[0].outputs == {}


def test_the_error_can_be_sent_to_another_process():
    error = ServingClientError("UNAVAILABLE", "Wait", True, 2.0)
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == "UNAVAILABLE: Wait"
    assert (copy.code, copy.retriable, copy.retry_after) == (
        "UNAVAILABLE",
        True,
        2.0,
    )


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_no_server(kind):
    target = f"127.0.0.1:{free_port()}"
    with Client(target, model="fake", protocol=kind, retries=QUICK) as client:
        error = refused(client)
        assert (error.code, error.retriable) == ("UNAVAILABLE", True)
        with pytest.raises(ServingClientError, match="DEADLINE.*UNAVAILABLE"):
            client.wait_until_ready(timeout=0.3)


def test_waits_for_a_server_to_come_up(kind):
    plan = Plan()
    plan.state = "LOADING"
    port = free_port()

    def come_up():
        time.sleep(0.1)
        with fake_server(kind, plan, port):
            time.sleep(0.2)
            plan.state = "AVAILABLE"
            done.wait(20)

    done = threading.Event()
    thread = threading.Thread(target=come_up)
    thread.start()
    try:
        with Client(f"127.0.0.1:{port}", model="fake", protocol=kind) as client:
            start = time.monotonic()
            (ready,) = client.wait_until_ready(timeout=20)
            assert time.monotonic() - start >= 0.25
            assert client.predict(IMAGE)[0].score == 1
    finally:
        done.set()
        thread.join()
    assert (ready.version, ready.state) == (1, "AVAILABLE")


def test_pauses_double_and_jitter():
    policy = RetryPolicy(backoff=0.1, max_backoff=0.5)
    for attempt, longest in enumerate([0.1, 0.2, 0.4, 0.5, 0.5]):
        pauses = [policy.pause(attempt) for _ in range(200)]
        assert longest / 2 <= min(pauses) < 0.6 * longest
        assert 0.9 * longest < max(pauses) <= longest
    assert policy.pause(10**6) <= 0.5


def test_a_cancelled_call_sends_nothing_more():
    plan = Plan([0.3, 0.0])

    async def ask(target):
        async with AsyncClient(
            target, model="fake", max_batch_size=1
        ) as client:
            await client.metadata()
            call = asyncio.create_task(client.predict([IMAGE] * 3))
            while not plan.attempts:
                await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.sleep(0.5)

    with fake_server("rest", plan) as target:
        asyncio.run(ask(target))
    assert plan.attempts == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"retries": -1}, "`retries`"),
        ({"backoff": 0}, "Pauses"),
        ({"backoff": 3}, "Pauses"),
    ],
)
def test_policies_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        RetryPolicy(**arguments)
