"""The converter leaks memory at each call: as few calls as possible."""

import json

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tensorflow.lite.python import schema_py_generated as schema

from keras_sspcab import SSPCABLayer
from keras_sspcab.export import check_parity, export_tflite, load_runner
from keras_sspcab.export.precision import FloatScopes, Graph, Operation
from tests.export.conftest import SIZE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tflite")


@pytest.fixture(scope="module")
def float32(detector, textures, folder):
    return export_tflite(
        detector, folder / "float32.tflite", images=textures["test"]
    )


@pytest.fixture(scope="module")
def float16(detector, textures, folder):
    return export_tflite(
        detector, folder / "float16.tflite", "float16", images=textures["test"]
    )


@pytest.fixture(scope="module")
def int8(detector, textures, folder):
    return export_tflite(
        detector,
        folder / "int8.tflite",
        precision="int8",
        representative_data=textures["train"],
        images=textures["test"],
    )


def run(path, image, name="image", **options):
    interpreter = Interpreter(model_path=str(path), **options)
    runner = interpreter.get_signature_runner("serving_default")
    return {k: np.array(v) for k, v in runner(**{name: image}).items()}


def operations(path):
    return [o.name for o in Graph.read(path.read_bytes()).operations]


def tensor_types(path):
    details = Interpreter(model_path=str(path)).get_tensor_details()
    return [np.dtype(detail["dtype"]).name for detail in details]


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_only_builtin_operations_and_no_variables(precision, request):
    names = set(operations(request.getfixturevalue(precision).path))
    assert "CONV_2D" in names
    assert not {n for n in names if n.startswith("Flex") or "VAR" in n}
    # What dilated convolutions become where a converter is not sure of them.
    assert not names & {"SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"}


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_bare_interpreter_gives_the_same(
    precision, request, detector, textures
):
    images = textures["test"][:2]
    expected = detector.predict(images, verbose=0)
    path = request.getfixturevalue(precision).path
    for i in range(2):
        results = run(path, images[i : i + 1])
        assert set(results) == {"anomaly_score", "anomaly_map", "is_anomalous"}
        for name, value in results.items():
            tolerance = 1e-3 if precision == "float32" else 0.1
            np.testing.assert_allclose(
                value, expected[name][i : i + 1], rtol=1e-4, atol=tolerance
            )


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_optional_inputs(precision, request, textures):
    path = request.getfixturevalue(precision).path
    run = load_runner(path)
    images = textures["test"]
    outputs = run(image=images)
    scores = outputs["anomaly_score"]
    threshold = np.full(len(images), np.median(scores), "float32")
    flagged = run(image=images, threshold=threshold)
    assert (flagged["is_anomalous"] == (scores >= threshold)).all()
    np.testing.assert_array_equal(flagged["anomaly_score"], scores)
    # Both signatures have the same weights, once, aligned as devices want it.
    content = path.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    first, second = (
        {i for o in graph.operators for i in o.inputs if i >= 0}
        for graph in model.subgraphs
    )
    buffers = [
        {graph.tensors[i].buffer for i in inputs}
        for graph, inputs in zip(model.subgraphs, (first, second), strict=True)
    ]
    large = [{b for b in part if _size(model, b) > 64} for part in buffers]
    assert large[0]
    assert large[0] == large[1]
    for buffer in large[0]:
        data = model.buffers[buffer].data.tobytes()
        assert content.index(data) % 16 == 0


def _size(model, buffer):
    data = model.buffers[buffer].data
    return 0 if data is None else len(data)


def test_weights_are_halved(float32, float16, detector, textures):
    assert "float16" in tensor_types(float16.path)
    assert "float16" not in tensor_types(float32.path)
    assert float16.parity.passes
    assert not check_parity(
        detector, float16.path, textures["test"], tolerance=1e-7
    ).passes


def test_int8_computes_in_integers_but_scores_in_float(int8):
    graph = Graph.read(int8.path.read_bytes())
    types = tensor_types(int8.path)
    convolutions = [o for o in graph.operations if o.name == "CONV_2D"]
    assert len(convolutions) == 7
    for operation in convolutions:
        assert types[operation.inputs[0]] == "int8"
        assert types[operation.inputs[1]] == "int8"
    scoring = [
        operation
        for operation in graph.operations
        if any(
            scope in graph.tensor_names[operation.outputs[0]]
            for scope in ("error_map", "smoothing", "pooling", "calibration")
        )
    ]
    assert len(scoring) >= 4
    for operation in scoring:
        assert types[operation.outputs[0]] in ("float32", "bool")


def test_int8_still_ranks_the_images(
    int8, detector, textures, folder, monkeypatch
):
    images = textures["test"]
    expected = detector.predict(images, verbose=0)["anomaly_score"]
    # Delegates may refuse what is compared with below.
    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES

    def scores(path):
        results = [
            run(path, image, experimental_op_resolver_type=kernels)
            for image in images[:, None]
        ]
        return np.concatenate([each["anomaly_score"] for each in results])

    assert np.corrcoef(scores(int8.path), expected)[0, 1] > 0.99
    errors = np.abs(scores(int8.path) - expected)
    # Quantized, and not float under another name.
    assert errors.max() > 1e-4
    # What it would be with the scoring in integers, too.
    monkeypatch.setattr(FloatScopes, "of", lambda model: FloatScopes((), ()))
    naive = export_tflite(
        detector,
        folder / "naive.tflite",
        precision="int8",
        representative_data=textures["train"],
        check=False,
    )
    assert errors.max() < np.abs(scores(naive.path) - expected).max() / 3


def test_int8_where_the_bottleneck_is_always_zero(textures, folder):
    block = SSPCABLayer(name="block")
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 1), name="photo"),
            keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
            block,
            keras.layers.Conv2D(1, 3, padding="same", name="drawing"),
        ]
    )
    squeeze = block.channel_attention.squeeze
    squeeze.set_weights([-np.ones((8, 1)), np.zeros(1)])
    path = folder / "plain_int8.tflite"
    result = export_tflite(
        model,
        path,
        precision="int8",
        representative_data=textures["train"],
        images=textures["test"],
    )
    assert result.parity.passes
    types = tensor_types(path)
    operations = Graph.read(path.read_bytes()).operations
    assert {
        types[operation.outputs[0]]
        for operation in operations
        if operation.name in ("CONV_2D", "MEAN", "MUL")
    } == {"int8"}
    assert {
        types[operation.outputs[0]]
        for operation in operations
        if operation.name == "FULLY_CONNECTED"
    } == {"float32"}
    assert run(path, textures["test"][:1], "photo")["drawing"].dtype == "f4"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: None, "needs `representative_data`"),
        (lambda images: images[:2], "must fill one batch at least"),
        (lambda images: images * 255, "`representative_data` must lie in"),
    ],
)
def test_int8_needs_representative_images(
    detector, textures, folder, change, message
):
    with pytest.raises(ValueError, match=message):
        export_tflite(
            detector,
            folder / "x.tflite",
            "int8",
            representative_data=change(textures["train"]),
            images=textures["test"],
            batch_size=3,
        )


def test_bigger_batch_of_a_plain_model(plain_model, textures, folder):
    path = folder / "plain.tflite"
    result = export_tflite(
        plain_model, path, images=textures["test"], batch_size=3
    )
    assert result.parity.passes
    assert result.parity.num_images == 18
    images = textures["test"][:3]
    results = run(path, images, "photo")
    assert list(results) == ["drawing"]
    np.testing.assert_allclose(
        results["drawing"], plain_model.predict(images, verbose=0), atol=1e-5
    )
    # The last of the batches of 8 is not full.
    assert check_parity(plain_model, path, textures["test"][:8]).passes


def test_models_of_any_size(sizeless_detector, textures, folder):
    path = folder / "size.tflite"
    images = textures["test"][:, :24]
    with pytest.raises(ValueError, match=r"pass `image_size=\(height, width"):
        export_tflite(sizeless_detector, path, images=images)
    result = export_tflite(
        sizeless_detector, path, images=images, image_size=(24, SIZE)
    )
    report = json.loads((folder / "size.tflite.parity.json").read_text())
    assert report["image_size"] == [24, SIZE]
    assert result.parity.passes
    names = operations(path)
    assert names.count("CONV_2D") == 7
    assert "SPACE_TO_BATCH_ND" not in names


def test_larger_corners_under_mixed_precision(
    make_mixed_detector, textures, folder
):
    model = make_mixed_detector(
        "mixed_float16", sspcab="middle", sspcab_options={"kernel_size": 2}
    )
    path = folder / "corners.tflite"
    assert export_tflite(model, path, images=textures["test"]).parity.passes
    assert "float16" not in tensor_types(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "model"}, r"must end in \.tflite"),
        ({"precision": "int4"}, "`precision` argument must be one"),
        ({"batch_size": None}, "`batch_size` argument must be an"),
        ({"check": True}, "or `check=False`"),
    ],
)
def test_arguments(detector, options, message):
    options = {"path": "m.tflite", "check": False, **options}
    with pytest.raises(ValueError, match=message):
        export_tflite(detector, **options)


def test_operations_with_several_outputs_stay_float_by_their_kind():
    graph = Graph(
        (
            Operation("SPLIT", False, (0,), (1, 2)),
            Operation("CONV_2D", False, (1,), (3,)),
            Operation("MEAN", False, (3,), (4,)),
            Operation("TOPK_V2", False, (4,), (5, 6)),
        ),
        ("a", "b", "c", "d/conv", "top/mean", "top/values", "top/places"),
    )
    scopes = FloatScopes(("top",), ())
    names = ["top/mean", "top/values", "top/places"]
    assert scopes.find(graph) == (names, ["TOPK_V2"])
    scopes = FloatScopes((), (), first_convolutions=1)
    assert scopes.find(graph) == (["b", "c", "d/conv"], ["SPLIT"])


def test_foreign_operations():
    graph = Graph(
        (
            Operation("CONV_2D", False, (0,), (1,)),
            Operation("FlexErf", True, (1,), (2,)),
            Operation("VAR_HANDLE", False, (), (3,)),
        ),
        ("a", "b", "c", "d"),
    )
    assert graph.foreign_operations == {"FlexErf", "VAR_HANDLE"}
