import base64
import http.server
import json
import logging
import threading
import time

import pytest

from keras_sspcab.export.watch import webhook
from keras_sspcab.export.watch.webhook import Webhook
from tests.export.watch.cameras import wait_until

MESSAGE = {"event": "begin", "score": 7.5}


class Receiver:
    """Answers with the codes given, the last one again and again."""

    def __init__(self, *codes):
        self.codes = list(codes)
        self.received = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_POST(self):
                length = int(self.headers["content-length"])
                body = json.loads(self.rfile.read(length))
                receiver.received.append((self.path, body))
                receiver.authorization = self.headers["authorization"]
                codes = receiver.codes
                code = codes.pop(0) if len(codes) > 1 else codes[0]
                self.send_response(code)
                if code == 302:
                    self.send_header("location", "/elsewhere")
                self.end_headers()

            do_GET = do_POST  # noqa: N815

        self._server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), Handler
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook/secret"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receive():
    receivers = []

    def receive(*codes):
        receivers.append(Receiver(*codes))
        return receivers[-1]

    yield receive
    for receiver in receivers:
        receiver.close()


@pytest.mark.parametrize("codes", [(200,), (503, 500, 429, 204)])
def test_messages_arrive_whatever_fails_first(receive, quick_retries, codes):
    receiver = receive(*codes)
    hook = Webhook(receiver.url)
    hook.send(MESSAGE)
    wait_until(lambda: len(receiver.received) == len(codes))
    hook.close()
    assert receiver.received == [("/hook/secret", MESSAGE)] * len(codes)


@pytest.mark.parametrize(
    ("code", "tries"), [(404, 1), (302, 1), (503, 4)], ids=str
)
def test_messages_are_given_up(receive, quick_retries, caplog, code, tries):
    receiver = receive(code)
    hook = Webhook(receiver.url)
    hook.send(MESSAGE)
    wait_until(lambda: "was not sent" in caplog.text)
    hook.close()
    # And none has gone elsewhere.
    assert receiver.received == [("/hook/secret", MESSAGE)] * tries
    assert f"HTTP {code}" in caplog.text
    assert "secret" not in caplog.text


def test_nobody_waits_for_a_server_that_is_away(caplog, monkeypatch):
    monkeypatch.setattr(webhook, "_MAX_WAITING", 3)
    hook = Webhook("http://127.0.0.1:9/hook")
    start = time.monotonic()
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            hook.send(MESSAGE)
        assert time.monotonic() - start < 1
        assert "the oldest is given up" in caplog.text
        hook.close()
    assert time.monotonic() - start < 8


def test_the_newest_alarm_is_not_the_one_that_is_given_up(monkeypatch):
    monkeypatch.setattr(webhook, "_MAX_WAITING", 2)
    monkeypatch.setattr(webhook.threading.Thread, "start", lambda _: None)
    hook = webhook.Webhook("http://127.0.0.1:9/alarms")
    for number in range(4):
        hook.send({"number": number})
    assert [hook._waiting.get()["number"] for _ in range(2)] == [2, 3]


def test_user_and_password_are_sent_as_such(receive, caplog):
    receiver = receive(404)
    hook = Webhook(receiver.url.replace("//", "//me:my%40secret@"))
    hook.send(MESSAGE)
    wait_until(lambda: "was not sent" in caplog.text)
    hook.close()
    assert receiver.received == [("/hook/secret", MESSAGE)]
    encoded = receiver.authorization.removeprefix("Basic ")
    assert base64.b64decode(encoded) == b"me:my@secret"
    assert "secret" not in caplog.text


def test_faults_of_an_address_do_not_tell_it(caplog, monkeypatch):
    monkeypatch.setattr(webhook, "_WAITS", ())
    hook = Webhook("http://127.0.0.1:secret/hook")
    hook.send(MESSAGE)
    wait_until(lambda: "was not sent" in caplog.text)
    hook.close()
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "url", ["https://door/my secret", "https://door/\x7fsecret\n"]
)
def test_addresses_that_cannot_be_sent_are_refused(url):
    with pytest.raises(ValueError, match="without blanks") as caught:
        Webhook(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://a/b", "file:///etc/passwd", "door"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ValueError, match="`webhook` argument must be a URL"):
        Webhook(url)
