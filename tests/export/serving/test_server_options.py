"""Thresholds of single requests, by all protocols and the client."""

import json
import re

import grpc
import numpy as np
import pytest

from keras_sspcab.export import Client, ServingClientError
from tests.export.serving.models import (
    NAME,
    direct,
    encoded,
    images,
    tiny_detector,
)
from tests.export.serving.served import (
    b64,
    code_of,
    http_call,
    predict_path,
    predict_request,
)

NAN = float("nan")
OPTIONS = "serving_default_options"


@pytest.fixture(scope="module")
def batch():
    return images(4)


@pytest.fixture(scope="module")
def scores(batch):
    return direct(image=batch)["anomaly_score"]


@pytest.fixture(scope="module")
def middle(scores):
    """A threshold amid the scores."""
    low, high = np.sort(scores)[1:3]
    return float((low + high) / 2)


def ask(server, **body):
    path = predict_path()
    return http_call(server, path, json.dumps(body).encode())


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
@pytest.mark.parametrize("kind", ["arrays", "files"])
def test_client(server, batch, middle, protocol, kind):
    target = server.grpc_target if protocol == "grpc" else server.rest_url
    if kind == "arrays":
        sent, outputs = batch, direct(image=batch)
    else:
        sent = [encoded(image) for image in batch]
        outputs = direct("serving_bytes", image_bytes=sent)
    scores = outputs["anomaly_score"]
    with Client(target, model=NAME) as client:
        plain = client.predict(sent)
        answers = client.predict(sent, threshold=middle)
        assert [a.is_anomalous for a in answers] == (scores >= middle).tolist()
        np.testing.assert_allclose(
            [a.score for a in answers], scores, 1e-3, 1e-3
        )
        same = client.predict(sent, sensitivity=0.5)
        assert [a.is_anomalous for a in same] == [a.is_anomalous for a in plain]
        all_above = client.predict(sent, sensitivity=1)
        assert [a.is_anomalous for a in all_above] == (scores >= 0).tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.0, "sensitivity": 0.5}, "not both"),
        ({"threshold": NAN}, "`threshold` argument must be a number"),
        ({"sensitivity": 1.5}, "`sensitivity` argument .* at most 1"),
    ],
)
def test_client_refuses(server, batch, options, message):
    with (
        Client(server.grpc_target, model=NAME) as client,
        pytest.raises(ServingClientError, match=message) as error,
    ):
        client.predict(batch, **options)
    assert error.value.code == "INVALID_ARGUMENT"


def test_client_of_an_export_without_options(server, batch):
    """Such as one of an earlier version."""
    with Client(server.grpc_target, model=NAME) as client:
        client.predict(batch)
        signatures = client._metadata.signatures
        del signatures["serving_default_options"]
        client._transport.metadata = lambda timeout: client._metadata
        with pytest.raises(ServingClientError, match="takes no threshold.*Exp"):
            client.predict(batch, threshold=2.0)


def test_rest_by_rows_and_by_columns(server, batch, scores, middle):
    """Each row may leave out what it does not need."""
    rows = [{"image": image.tolist()} for image in batch]
    rows[0]["threshold"] = float(scores[0]) - 1
    rows[1]["threshold"] = float(scores[1]) + 1
    rows[2]["sensitivity"] = 0.5
    status, answer = ask(server, signature_name=OPTIONS, instances=rows)
    assert status == 200
    flags = [row["is_anomalous"] for row in answer["predictions"]]
    calibrated = direct(image=batch)["is_anomalous"].tolist()
    assert flags == [True, False, *calibrated[2:]]
    # Null is the model's own as well.
    rows[2]["threshold"] = rows[3]["threshold"] = None
    assert ask(server, signature_name=OPTIONS, instances=rows) == (200, answer)
    columns = {"image": batch.tolist(), "threshold": [middle] * 4}
    status, answer = ask(server, signature_name=OPTIONS, inputs=columns)
    assert answer["outputs"]["is_anomalous"] == (scores >= middle).tolist()
    for nothing in (None, [None] * 4):
        columns["threshold"] = nothing
        status, answer = ask(server, signature_name=OPTIONS, inputs=columns)
        assert answer["outputs"]["is_anomalous"] == calibrated
    files = [{"b64": b64(encoded(image))["b64"]} for image in batch]
    status, answer = ask(
        server, signature_name="serving_bytes_options", instances=files
    )
    flags = [row["is_anomalous"] for row in answer["predictions"]]
    assert flags == calibrated


@pytest.mark.parametrize(
    ("signature", "options", "message"),
    [
        (OPTIONS, {"threshold": [1.0], "sensitivity": [0.5]}, "not both"),
        (OPTIONS, {"sensitivity": [1.5]}, r"must lie in \[0, 1\]"),
        (OPTIONS, {"threshold": [float("inf")]}, "must be finite, or NaN"),
        (OPTIONS, {"threshold": [1.0, 2.0]}, "same number of rows"),
        (OPTIONS, {"threshold": 1.0}, "must have the shape"),
        (OPTIONS, {"tolerance": [1.0]}, "Sent extra: {tolerance}"),
        ("", {"threshold": [1.0]}, "Sent extra: {threshold}"),
    ],
)
def test_rest_refuses(server, batch, signature, options, message):
    inputs = {"image": batch[:1].tolist(), **options}
    status, answer = ask(server, signature_name=signature, inputs=inputs)
    assert status == 400
    assert re.search(message, answer["error"])


def test_grpc(server, caller, batch, scores, middle):
    full = np.full(4, middle, "float32")
    request = predict_request(signature=OPTIONS, image=batch, threshold=full)
    outputs, _ = caller.predict(request)
    assert (outputs["is_anomalous"] == (scores >= middle)).all()
    # As TensorFlow Serving wants it: nothing is left out.
    left_out = np.full(4, NAN, "float32")
    request = predict_request(
        signature=OPTIONS, image=batch, threshold=full, sensitivity=left_out
    )
    outputs, _ = caller.predict(request)
    assert (outputs["is_anomalous"] == (scores >= middle)).all()
    request = predict_request(signature=OPTIONS, threshold=full)
    with pytest.raises(grpc.RpcError) as error:
        caller.predict(request)
    assert code_of(error) == "INVALID_ARGUMENT"


def test_the_client_counts_as_python_does(server, batch):
    """The definition is one for graphs and for Python."""
    calibration = tiny_detector().calibration
    outputs = direct(image=batch)
    with Client(server.grpc_target, model=NAME) as client:
        for sensitivity in (0.0, 0.6, 0.8, 0.95):
            answers = client.predict(batch, sensitivity=sensitivity)
            adjusted = calibration.adjusted(sensitivity=sensitivity)
            expected = adjusted.decide(outputs["anomaly_score"], None)
            assert [a.is_anomalous for a in answers] == expected.tolist()
