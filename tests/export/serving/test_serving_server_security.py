"""TLS, the token, and who may reach the server."""

import http.client
import ssl

import grpc
import pytest

from keras_sspcab.export.serving import Server, ServerOptions
from tests.export.serving.packaged import NAME
from tests.export.serving.served import (
    TOKEN,
    GrpcCaller,
    calling,
    code_of,
    http_call,
    images,
    make_certificate,
    model_path,
    predict_path,
    predict_request,
    serve,
)


@pytest.fixture(scope="module")
def token_server():
    with serve(token=TOKEN) as server:
        yield server


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def predict_by_grpc(server, credentials, token=TOKEN):
    target = f"localhost:{server.grpc_port}"
    with grpc.secure_channel(target, credentials) as channel:
        caller = GrpcCaller(server, channel)
        metadata = list(bearer(token).items())
        request = predict_request(image=images(2))
        return caller.predict(request, metadata=metadata)[0]


def test_tls_is_not_left_out(secure_server, tmp_path):
    """Neither plain text nor a stranger's certificate will do."""
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
    with pytest.raises(grpc.RpcError) as error:
        predict_by_grpc(
            secure_server, grpc.ssl_channel_credentials(other.read_bytes())
        )
    assert code_of(error) == "UNAVAILABLE"


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
        (
            {"tls_certificate": key, "tls_key": certificate},
            "cannot be used together",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            serve(**options).start()


GRPC_CALLS = {
    "Predict": lambda caller, metadata: caller.predict(
        predict_request(image=images(1)), metadata=metadata
    ),
    "GetModelMetadata": lambda caller, metadata: caller.raw(
        b"\x0a\x08\x0a\x06screws\x12\x0dsignature_def",
        "PredictionService/GetModelMetadata",
        metadata=metadata,
    ),
    "GetModelStatus": lambda caller, metadata: caller.raw(
        b"\x0a\x08\x0a\x06screws",
        "ModelService/GetModelStatus",
        metadata=metadata,
    ),
}
WRONG_HEADERS = [
    None,
    "Bearer wrong-horse-battery",
    f"Bearer {TOKEN}x",
    f"Bearer {TOKEN[:-1]}",
    f"Basic {TOKEN}",
    TOKEN,
    "Bearer ",
]


@pytest.mark.parametrize("header", WRONG_HEADERS)
def test_grpc_refuses_wrong_tokens(token_server, header):
    metadata = [] if header is None else [("authorization", header)]
    with calling(token_server) as caller:
        for call in GRPC_CALLS.values():
            with pytest.raises(grpc.RpcError) as error:
                call(caller, metadata)
            assert code_of(error) == "UNAUTHENTICATED"
            assert TOKEN not in error.value.details()


GUARDED = [
    (predict_path(), {"instances": images(1).tolist()}),
    (f"/v1/models/{NAME}", None),
    (f"/v1/models/{NAME}/metadata", None),
    ("/v1/models/unknown", None),
    ("/metrics", None),
    ("/monitoring/prometheus/metrics", None),
    ("/page.json", None),
]


@pytest.mark.parametrize("header", WRONG_HEADERS)
def test_rest_refuses_wrong_tokens(token_server, header):
    headers = {} if header is None else {"authorization": header}
    for path, body in GUARDED:
        status, answer = http_call(token_server, path, body, headers)
        assert status == 401, path
        assert list(answer) == ["error"]
        assert TOKEN not in answer["error"]


def test_rest_takes_the_right_token(token_server):
    for path, body in GUARDED:
        status, _ = http_call(token_server, path, body, bearer(TOKEN))
        assert status == (404 if "unknown" in path else 200), path


def test_health_and_the_page_need_no_token(token_server):
    for path in ("/healthz", "/readyz", "/", "/page.js", "/page.css"):
        status, content = http_call(token_server, path)
        assert status == 200
        # The page is the same for all: it knows nothing of the models.
        assert NAME.encode() not in content


def test_the_token_is_not_shown():
    assert TOKEN not in repr(ServerOptions(token=TOKEN))
    for token in (
        "short",
        "two words here",
        "\u00fcmlaut-token",
        "line\nbreak",
    ):
        with pytest.raises(ValueError, match="token") as error:
            ServerOptions(token=token)
        assert token not in str(error.value)


def test_others_are_let_in_only_with_a_warning():
    assert ServerOptions().is_loopback
    options = {"host": "0.0.0.0", "grpc_port": 0, "rest_port": 0}
    server = Server(model_path(), ServerOptions(**options))
    with pytest.warns(UserWarning, match="asks for no token"), server:
        assert http_call(server, "/healthz") == (200, b"ok\n")
    with Server(model_path(), ServerOptions(token=TOKEN, **options)) as server:
        assert http_call(server, "/v1/models/screws")[0] == 401


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
def test_nothing_else_is_to_be_had(token_server, path):
    status, content = http_call(token_server, path, headers=bearer(TOKEN))
    assert status in (400, 404)
    assert b"root:" not in str(content).encode()


def test_the_page_keeps_others_out(token_server):
    connection = http.client.HTTPConnection("127.0.0.1", token_server.rest_port)
    connection.request("GET", "/")
    headers = connection.getresponse().headers
    connection.close()
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    # No other site may read answers.
    assert "access-control-allow-origin" not in headers
