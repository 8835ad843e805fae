"""Both protocols answer as the SavedModel does, called without a server."""

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import get_model_metadata_pb2

from tests.export.serving.models import (
    NAME,
    OUTPUTS,
    SIZE,
    assert_same,
    direct,
    encoded,
    images,
)
from tests.export.serving.served import (
    b64,
    code_of,
    http_call,
    predict_path,
    predict_request,
)


def test_grpc_predicts_as_the_saved_model(caller):
    batch = images(3)
    request = predict_request(image=batch)
    outputs, spec = caller.predict(request)
    expected = direct(image=batch)
    assert_same(outputs, expected)
    assert (spec.name, spec.version.value) == (NAME, 1)
    assert spec.signature_name == "serving_default"
    # Other clients read these fields.
    response = caller.prediction.Predict(request)
    score, flag = (
        response.outputs[name] for name in ("anomaly_score", "is_anomalous")
    )
    np.testing.assert_allclose(
        score.float_val, expected["anomaly_score"], rtol=1e-4
    )
    np.testing.assert_array_equal(flag.bool_val, expected["is_anomalous"])
    # And fill these.
    assert request.inputs["image"].tensor_content
    request.inputs["image"].ClearField("tensor_content")
    request.inputs["image"].float_val.extend(batch.ravel().tolist())
    assert_same(caller.predict(request)[0], expected)


def test_grpc_chooses_outputs_and_versions(caller):
    request = predict_request(image=images(1), version=1)
    request.output_filter.append("anomaly_score")
    outputs, spec = caller.predict(request)
    assert set(outputs) == {"anomaly_score"}
    assert spec.version.value == 1
    request.model_spec.version_label = "stable"
    assert caller.predict(request)[1].version.value == 1


def test_grpc_predicts_from_files(caller):
    files = [
        encoded(images(1)[0]),
        encoded(images(1, 1)[0], "JPEG"),
        encoded(np.ones((50, 40)), "BMP"),
        encoded(images(1, 2)[0], "GIF"),
    ]
    request = predict_request(signature="serving_bytes", image_bytes=files)
    outputs, spec = caller.predict(request)
    assert_same(outputs, direct("serving_bytes", image_bytes=files))
    assert spec.signature_name == "serving_bytes"


def test_grpc_status_and_metadata(caller):
    for choice in ({}, {"version": 1}, {"label": "stable"}):
        (status,) = caller.status(**choice).model_version_status
        assert (status.version, status.state) == (1, 30)
        assert status.status.error_code == 0
    response = caller.metadata()
    assert response.model_spec.version.value == 1
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def) >= {"serving_default", "serving_bytes"}
    signature = signatures.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    image = signature.inputs["image"]
    sizes = [dim.size for dim in image.tensor_shape.dim]
    assert (image.dtype, sizes) == (1, [-1, SIZE, SIZE, 1])
    assert set(signature.outputs) == set(OUTPUTS)


def _changed(inputs=None, output=(), **spec):
    if inputs is None:
        inputs = {"image": images(1)}
    version = spec.pop("version", None)
    request = predict_request(version=version, **inputs)
    request.output_filter.extend(output)
    for name, value in spec.items():
        setattr(request.model_spec, name, value)
    return request


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": "nuts"}, "NOT_FOUND"),
        ({"version": 7}, "NOT_FOUND"),
        ({"version_label": "x"}, "INVALID_ARGUMENT"),
        ({"signature_name": "x"}, "FAILED_PRECONDITION"),
        ({"output": ["x"]}, "INVALID_ARGUMENT"),
        ({"output": ["anomaly_map"] * 2}, "INVALID_ARGUMENT"),
        ({"inputs": {}}, "INVALID_ARGUMENT"),
        ({"inputs": {"image": images(1), "x": 1.0}}, "INVALID_ARGUMENT"),
        ({"inputs": {"image": images(1).astype("d")}}, "INVALID_ARGUMENT"),
        ({"inputs": {"image": images(1)[0]}}, "INVALID_ARGUMENT"),
        ({"inputs": {"image": images(1)[:, :31]}}, "INVALID_ARGUMENT"),
        ({"inputs": {"image": images(0)}}, "INVALID_ARGUMENT"),
    ],
)
def test_grpc_refuses(caller, changes, code):
    with pytest.raises(grpc.RpcError) as error:
        caller.predict(_changed(**changes))
    assert code_of(error) == code


def test_grpc_refuses_other_questions(caller):
    for call, code in (
        (lambda: caller.status("nuts"), "NOT_FOUND"),
        (lambda: caller.status(version=9), "NOT_FOUND"),
        (lambda: caller.metadata("nuts"), "NOT_FOUND"),
        (lambda: caller.metadata(fields=()), "INVALID_ARGUMENT"),
        (lambda: caller.metadata(fields=("x",)), "INVALID_ARGUMENT"),
        (lambda: caller.raw(b""), "INVALID_ARGUMENT"),
        (
            lambda: caller.raw(b"", "PredictionService/Classify"),
            "UNIMPLEMENTED",
        ),
    ):
        with pytest.raises(grpc.RpcError) as error:
            call()
        assert code_of(error) == code


def outputs_of(answer):
    """Returns the outputs of a REST answer in row or column format."""
    if "outputs" in answer:
        return {k: np.array(v) for k, v in answer["outputs"].items()}
    rows = answer["predictions"]
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def test_rest_predicts_by_rows_and_by_columns(server):
    batch = images(2)
    files = [b64(encoded(image)) for image in batch]
    for signature, name, values, expected in (
        ("serving_default", "image", batch.tolist(), direct(image=batch)),
        (
            "serving_bytes",
            "image_bytes",
            files,
            direct("serving_bytes", image_bytes=list(map(encoded, batch))),
        ),
    ):
        for inputs in (
            {"instances": values},
            {"instances": [{name: value} for value in values]},
            {"inputs": values},
            {"inputs": {name: values}},
        ):
            body = {"signature_name": signature, **inputs}
            status, answer = http_call(server, predict_path(), body)
            assert status == 200, answer
            assert_same(outputs_of(answer), expected)


@pytest.mark.parametrize("where", ["/versions/1", "/labels/stable"])
def test_rest_predicts_by_version_and_label(server, where):
    body = {"inputs": images(1).tolist()}
    status, answer = http_call(server, predict_path(where=where), body)
    assert status == 200
    assert_same(outputs_of(answer), direct(image=images(1)))


def test_rest_status_and_metadata(server):
    for where in ("", "/versions/1", "/labels/stable"):
        path = f"/v1/models/{NAME}{where}"
        assert http_call(server, path) == (
            200,
            {
                "model_version_status": [
                    {
                        "version": "1",
                        "state": "AVAILABLE",
                        "status": {"error_code": "OK", "error_message": ""},
                    }
                ]
            },
        )
        status, answer = http_call(server, f"{path}/metadata")
        assert status == 200
        assert answer["model_spec"] == {
            "name": NAME,
            "signature_name": "",
            "version": "1",
        }
        signatures = answer["metadata"]["signature_def"]["signature_def"]
        tensor = signatures["serving_default"]["inputs"]["image"]
        assert tensor["dtype"] == "DT_FLOAT"
        assert tensor["tensor_shape"]["unknown_rank"] is False
        sizes = [dim["size"] for dim in tensor["tensor_shape"]["dim"]]
        assert sizes == ["-1", str(SIZE), str(SIZE), "1"]


ROW = images(1)[0].tolist()


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (predict_path("nuts"), {"instances": [1]}, 404, "Latest(nuts)"),
        (predict_path(where="/versions/7"), {"instances": [1]}, 404, "7"),
        (predict_path(where="/labels/x"), {"instances": [1]}, 400, "label: x"),
        (predict_path(where=f"/versions/{'9' * 30}"), {}, 400, "numeric"),
        (f"/v1/models/{NAME}:classify", {}, 501, "Classify"),
        (f"/v1/models/{NAME}:sing", {}, 400, "Malformed request: POST"),
        ("/v1/models", None, 400, "Malformed request: GET"),
        (
            f"/v1/models/{NAME}/versions/{'9' * 5000}",
            None,
            400,
            "Failed to convert version",
        ),
        ("/v1/models/nuts", None, 404, "any versions of model nuts"),
        (f"/v1/models/{NAME}/versions/7", None, 404, "version 7 of"),
        ("/v1/models/nuts/metadata", None, 404, "Latest(nuts)"),
    ],
)
def test_rest_refuses_paths(server, path, body, status, message):
    received, answer = http_call(server, path, body)
    assert (received, list(answer)) == (status, ["error"])
    assert message in answer["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "document is empty"),
        (b"{", "Parse error"),
        (b"[" * 100_000, "Parse error"),
        ([], "not object"),
        ({}, "Missing 'inputs' or 'instances'"),
        ({"instances": 1, "inputs": 1}, "only one of"),
        ({"instances": []}, "No values"),
        ({"instances": 1}, "list/array"),
        ({"signature_name": 1, "inputs": 1}, "string"),
        ({"signature_name": "x", "inputs": 1}, '"x" not found'),
        ({"inputs": {"x": 1}}, "required: {image}"),
        ({"inputs": {"image": {}}}, "Received: an object"),
        ({"instances": [{"x": 1}]}, "keys must be equal"),
        ({"instances": [{"image": ROW}, 1]}, "item 1"),
        ({"instances": [ROW, [1]]}, "no regular array"),
        ({"instances": [[0.5]]}, "Received: (1, 1)"),
        ({"instances": ["0.5"]}, "Received: a text at [0]"),
        ({"instances": [None]}, "Received: null at [0]"),
        ({"instances": [0, True]}, "Received: a truth value at [1]"),
        # NumPy would make texts of a megabyte of all these numbers.
        ({"instances": [0] * 1000 + ["x" * 900_000]}, "a text at [1000]"),
        ({"instances": [1e300]}, "too large"),
        (
            {"signature_name": "serving_bytes", "instances": [{"b64": "%"}]},
            "base64",
        ),
        ({"signature_name": "serving_bytes", "instances": [1]}, '{"b64"'),
    ],
)
def test_rest_refuses_bodies(server, body, message):
    status, answer = http_call(server, predict_path(), body)
    assert (status, list(answer)) == (400, ["error"])
    assert message in answer["error"]
