"""Both protocols answer as the SavedModel does, called without a server."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2

from tests.export.serving.packaged import NAME, SIZE
from tests.export.serving.served import (
    OUTPUTS,
    assert_same,
    b64,
    code_of,
    direct,
    encoded,
    http_call,
    images,
    predict_path,
    predict_request,
)


@pytest.mark.parametrize("count", [1, 3])
def test_grpc_predicts_as_the_saved_model(caller, count):
    batch = images(count)
    outputs, spec = caller.predict(predict_request(image=batch))
    assert_same(outputs, direct(image=batch))
    assert (spec.name, spec.version.value) == (NAME, 1)
    assert spec.signature_name == "serving_default"


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


def test_grpc_fills_the_fields_that_other_clients_read(caller):
    batch = images(2)
    response = caller.prediction.Predict(predict_request(image=batch))
    expected = direct(image=batch)
    np.testing.assert_allclose(
        response.outputs["anomaly_score"].float_val,
        expected["anomaly_score"],
        rtol=1e-4,
    )
    np.testing.assert_array_equal(
        response.outputs["is_anomalous"].bool_val, expected["is_anomalous"]
    )


def test_grpc_reads_values_by_field_and_by_content(caller):
    batch = images(1)
    by_content = predict_request(image=batch)
    assert by_content.inputs["image"].tensor_content
    by_field = predict_request(image=batch)
    by_field.inputs["image"].ClearField("tensor_content")
    by_field.inputs["image"].float_val.extend(batch.ravel().tolist())
    assert_same(caller.predict(by_field)[0], caller.predict(by_content)[0])


def test_grpc_gives_the_outputs_that_are_asked_for(caller):
    request = predict_request(image=images(1))
    request.output_filter.append("anomaly_score")
    assert set(caller.predict(request)[0]) == {"anomaly_score"}


def test_grpc_finds_a_version_by_number_and_label(caller):
    request = predict_request(image=images(1), version=1)
    assert caller.predict(request)[1].version.value == 1
    request.model_spec.version_label = "stable"
    assert caller.predict(request)[1].version.value == 1


def test_grpc_metadata_is_that_of_the_file(caller):
    response = caller.metadata()
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    assert response.model_spec.version.value == 1
    signature = signatures.signature_def["serving_default"]
    assert signature.inputs["image"].dtype == tf.float32.as_datatype_enum
    shape = [dim.size for dim in signature.inputs["image"].tensor_shape.dim]
    assert shape == [-1, SIZE, SIZE, 1]
    assert set(signature.outputs) == set(OUTPUTS)
    assert signature.method_name == "tensorflow/serving/predict"
    assert "serving_bytes" in signatures.signature_def


def test_grpc_status(caller):
    for choice in ({}, {"version": 1}, {"label": "stable"}):
        (status,) = caller.status(**choice).model_version_status
        assert (status.version, status.state) == (1, 30)
        assert status.status.error_code == 0


def _changed(**changes):
    request = predict_request(image=images(1))
    for name, value in changes.items():
        if name == "inputs":
            del request.inputs["image"]
            for key, tensor in value.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(tensor))
        elif name == "output":
            request.output_filter.extend(value)
        elif name == "version":
            request.model_spec.version.value = value
        else:
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


@pytest.mark.parametrize("where", ["", "/versions/1", "/labels/stable"])
def test_rest_predicts_by_rows(server, where):
    batch = images(2)
    body = {"instances": batch.tolist()}
    status, answer = http_call(server, predict_path(where=where), body)
    assert status == 200
    rows = answer["predictions"]
    found = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    assert_same(found, direct(image=batch))


def test_rest_predicts_by_columns(server):
    batch = images(2)
    for inputs in (batch.tolist(), {"image": batch.tolist()}):
        status, answer = http_call(server, predict_path(), {"inputs": inputs})
        assert status == 200
        found = {k: np.array(v) for k, v in answer["outputs"].items()}
        assert_same(found, direct(image=batch))


def test_rest_predicts_from_files(server):
    files = [encoded(image) for image in images(2)]
    expected = direct("serving_bytes", image_bytes=files)
    for inputs in (
        {"instances": [b64(file) for file in files]},
        {"instances": [{"image_bytes": b64(file)} for file in files]},
        {"inputs": [b64(file) for file in files]},
        {"inputs": {"image_bytes": [b64(file) for file in files]}},
    ):
        body = {"signature_name": "serving_bytes", **inputs}
        status, answer = http_call(server, predict_path(), body)
        assert status == 200, answer
        if "outputs" in answer:
            scores = answer["outputs"]["anomaly_score"]
        else:
            scores = [row["anomaly_score"] for row in answer["predictions"]]
        np.testing.assert_allclose(scores, expected["anomaly_score"], rtol=1e-4)


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
        (predict_path(), b"", 400, "document is empty"),
        (predict_path(), b"{", 400, "Parse error"),
        (predict_path(), b"[" * 100_000, 400, "Parse error"),
        (predict_path(), [], 400, "not object"),
        (predict_path(), {}, 400, "Missing 'inputs' or 'instances'"),
        (predict_path(), {"instances": 1, "inputs": 1}, 400, "only one of"),
        (predict_path(), {"instances": []}, 400, "No values"),
        (predict_path(), {"instances": 1}, 400, "list/array"),
        (predict_path(), {"signature_name": 1, "inputs": 1}, 400, "string"),
        (
            predict_path(),
            {"signature_name": "x", "inputs": 1},
            400,
            '"x" not found',
        ),
        (predict_path(), {"inputs": {"x": 1}}, 400, "required: {image}"),
        (predict_path(), {"instances": [{"x": 1}]}, 400, "keys must be equal"),
        (predict_path(), {"instances": [{"image": ROW}, 1]}, 400, "item 1"),
        (predict_path(), {"instances": [ROW, [1]]}, 400, "no regular array"),
        (predict_path(), {"instances": [[0.5]]}, 400, "Received: (1, 1)"),
        (predict_path(), {"instances": ["0.5"]}, 400, "type: float32"),
        (predict_path(), {"instances": [None]}, 400, "type: float32"),
        (predict_path(), {"instances": [1e300]}, 400, "too large"),
        (
            predict_path(),
            {"signature_name": "serving_bytes", "instances": [{"b64": "%"}]},
            400,
            "base64",
        ),
        (
            predict_path(),
            {"signature_name": "serving_bytes", "instances": [1]},
            400,
            '{"b64"',
        ),
        (f"/v1/models/{NAME}:classify", {}, 501, "Classify"),
        (f"/v1/models/{NAME}:sing", {}, 400, "Malformed request: POST"),
        ("/v1/models", None, 400, "Malformed request: GET"),
        ("/v1/models/nuts", None, 404, "any versions of model nuts"),
        (f"/v1/models/{NAME}/versions/7", None, 404, "version 7 of"),
        ("/v1/models/nuts/metadata", None, 404, "Latest(nuts)"),
    ],
)
def test_rest_refuses(server, path, body, status, message):
    found, answer = http_call(server, path, body)
    assert (found, list(answer)) == (status, ["error"])
    assert message in answer["error"]
