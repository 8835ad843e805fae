"""TLS, the token, and who may reach the server, with any client and ours."""

import http.client
import ssl

import grpc
import pytest

from keras_sspcab.export import Client, ServingClientError
from keras_sspcab.export.serving import Server, ServerOptions
from tests.export.serving.conformance import KINDS, check, make_client
from tests.export.serving.models import NAME, direct, images, model_path
from tests.export.serving.served import (
    TOKEN,
    GrpcCaller,
    calling,
    code_of,
    http_call,
    make_certificate,
    predict_path,
    predict_request,
    serve,
)


@pytest.fixture(scope="module")
def token_server():
    with serve(token=TOKEN) as server:
        yield server


@pytest.fixture(params=KINDS)
def ask(request, secure_server):
    """A function that makes clients of the server with TLS and a token."""
    server = secure_server
    target = server.grpc_target if request.param == "grpc" else server.rest_url
    return lambda **options: make_client(request.param, target, **options)


def test_the_client_sends_the_token_over_tls(ask, certificate):
    with ask(token=TOKEN, tls_ca=certificate[0]) as client:
        client.wait_until_ready(timeout=20)
        check(client.predict(images(1)), direct(image=images(1)))
    with ask(token="another-token", tls_ca=certificate[0]) as client:
        for call in (client.status, client.wait_until_ready):
            with pytest.raises(ServingClientError) as error:
                call()
            assert error.value.code == "UNAUTHENTICATED"
            assert not error.value.retriable


def test_the_client_refuses_certificates_that_the_system_does_not_trust(ask):
    with ask(token=TOKEN, tls=True, timeout=10) as client:
        with pytest.raises(ServingClientError) as error:
            client.status()
        assert error.value.code == "UNAVAILABLE"
        assert not error.value.retriable
        assert "certificate" in error.value.message.lower()


def test_clients_may_bring_their_own_credentials(secure_server, certificate):
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


def test_nobody_gets_around_tls(secure_server, tmp_path):
    with pytest.raises((OSError, http.client.HTTPException)):
        http_call(secure_server, "/healthz")
    with (
        grpc.insecure_channel(secure_server.grpc_target) as channel,
        pytest.raises(grpc.RpcError) as error,
    ):
        GrpcCaller(secure_server, channel).status()
    assert code_of(error) == "UNAVAILABLE"
    other, _ = make_certificate(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        http_call(secure_server, "/healthz", certificate=other)


def test_tls_needs_both_files_of_a_pair(certificate, tmp_path):
    certificate, key = certificate
    _, other_key = make_certificate(tmp_path)
    for options, message in (
        ({"tls_key": key}, "TLS needs both"),
        ({"tls_certificate": certificate}, "TLS needs both"),
        (
            {"tls_certificate": certificate, "tls_key": tmp_path / "none"},
            "There is no file",
        ),
        (
            {"tls_certificate": certificate, "tls_key": other_key},
            "cannot be used together",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            serve(**options).start()


GUARDED = [
    (predict_path(), {"instances": images(1).tolist()}),
    (f"/v1/models/{NAME}", None),
    (f"/v1/models/{NAME}/metadata", None),
    ("/v1/models/unknown", None),
    ("/metrics", None),
    ("/monitoring/prometheus/metrics", None),
    ("/page.json", None),
]
GUARDED_METHODS = {
    "PredictionService/Predict": predict_request(
        image=images(1)
    ).SerializeToString(),
    "PredictionService/GetModelMetadata": (
        b"\x0a\x08\x0a\x06screws\x12\x0dsignature_def"
    ),
    "ModelService/GetModelStatus": b"\x0a\x08\x0a\x06screws",
}


@pytest.mark.parametrize(
    "header",
    [
        None,
        "Bearer wrong-horse-battery",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer ",
    ],
)
def test_wrong_tokens_are_refused(token_server, header):
    headers = {} if header is None else {"authorization": header}
    for path, body in GUARDED:
        status, answer = http_call(token_server, path, body, headers)
        assert status == 401, path
        assert list(answer) == ["error"]
        assert TOKEN not in answer["error"]
    with calling(token_server) as caller:
        for method, data in GUARDED_METHODS.items():
            with pytest.raises(grpc.RpcError) as error:
                caller.raw(data, method, metadata=list(headers.items()))
            assert code_of(error) == "UNAUTHENTICATED"
            assert TOKEN not in error.value.details()


def test_the_right_token_is_accepted(token_server):
    headers = {"authorization": f"Bearer {TOKEN}"}
    for path, body in GUARDED:
        status, _ = http_call(token_server, path, body, headers)
        assert status == (404 if "unknown" in path else 200), path
    with calling(token_server) as caller:
        for method, data in GUARDED_METHODS.items():
            assert caller.raw(data, method, metadata=list(headers.items()))


def test_health_and_the_page_need_no_token(token_server):
    for path in ("/healthz", "/readyz", "/", "/page.js", "/design.css"):
        status, content = http_call(token_server, path)
        assert status == 200
        # The page is the same for all: it knows nothing of the models.
        assert NAME.encode() not in content


def test_tokens_are_checked_and_not_shown():
    assert TOKEN not in repr(ServerOptions(token=TOKEN))
    for token in ("short", "two words here", "\u00fcmlaut-token", "a\nbreaks"):
        with pytest.raises(ValueError, match="token") as error:
            ServerOptions(token=token)
        assert token not in str(error.value)


def test_a_server_for_others_without_a_token_warns():
    assert ServerOptions().is_loopback
    options = {"host": "0.0.0.0", "grpc_port": 0, "rest_port": 0}
    server = Server(model_path(), ServerOptions(**options))
    with pytest.warns(UserWarning, match="asks for no token"), server:
        assert http_call(server, "/healthz") == (200, b"ok\n")
    with Server(model_path(), ServerOptions(token=TOKEN, **options)) as server:
        assert http_call(server, "/v1/models/screws")[0] == 401


LOOPBACK = {}
OPEN = {"host": "0.0.0.0"}
NAMED = {"host": "0.0.0.0", "allowed_hosts": ("Inspect.example",)}


@pytest.mark.parametrize(
    ("options", "host", "is_allowed"),
    [
        (LOOPBACK, "localhost:8501", True),
        (LOOPBACK, "127.0.0.1", True),
        (LOOPBACK, "[::1]:8501", True),
        (LOOPBACK, "screws.localhost.", True),
        (LOOPBACK, "evil.example:8501", False),
        (LOOPBACK, "localhost.evil.example", False),
        (LOOPBACK, "127.0.0.1.evil.example", False),
        (LOOPBACK, "", False),
        (LOOPBACK, "[::1", False),
        (LOOPBACK, "localhost@evil.example", False),
        ({"host": "localhost"}, "evil.example", False),
        ({"allowed_hosts": ("inspect.example",)}, "INSPECT.example:80", True),
        # Others ask by any name, such as that of a service of Kubernetes.
        (OPEN, "serving.default.svc", True),
        (NAMED, "inspect.example", True),
        (NAMED, "10.1.2.3:8501", True),  # as probes of Kubernetes do
        (NAMED, "evil.example", False),
        # Written as the refusal shows it, or as in a browser.
        ({"allowed_hosts": ("a.example:8501",)}, "a.example:8501", True),
        ({"allowed_hosts": ("::1", "[fe80::1]")}, "b.example", False),
        ({"allowed_hosts": ("https://A.example./x",)}, "a.example", True),
    ],
)
def test_hosts_that_are_answered_for(options, host, is_allowed):
    assert ServerOptions(**options).allows_host(host) == is_allowed


@pytest.mark.parametrize("hosts", ["box.example", ("",), ("http://",)])
def test_hosts_that_are_no_names_are_refused(hosts):
    with pytest.raises(ValueError, match="`allowed_hosts`"):
        ServerOptions(allowed_hosts=hosts)


@pytest.mark.parametrize(
    "path", ["/", "/page.json", "/metrics", "/readyz", f"/v1/models/{NAME}"]
)
def test_a_site_whose_name_resolves_to_this_machine_reads_nothing(server, path):
    status, answer = http_call(server, path, headers={"host": "evil.example"})
    assert (status, list(answer)) == (403, ["error"])
    assert "--allowed-host" in answer["error"]
    assert http_call(server, path)[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/page.css/../page.py",
        "/v1/models/..%2f..%2fetc",
        "/v1/models/screws/../../../etc/passwd",
        "/server.py",
        "/docs",
    ],
)
def test_no_other_files_are_served(token_server, path):
    headers = {"authorization": f"Bearer {TOKEN}"}
    status, content = http_call(token_server, path, headers=headers)
    assert status in (400, 404)
    assert b"root:" not in str(content).encode()


def test_the_page_has_a_strict_policy(token_server):
    connection = http.client.HTTPConnection("127.0.0.1", token_server.rest_port)
    connection.request("GET", "/")
    headers = connection.getresponse().headers
    connection.close()
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    # No other site may read answers.
    assert "access-control-allow-origin" not in headers
