import sys
from types import SimpleNamespace

import numpy as np
import pytest
from object_videos import draw_square

from keras_sspcab.data.objects import OnnxDetector
from keras_sspcab.data.objects.onnx_detector import _Input

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")

FRAME = draw_square(10, 12)
# Corners in pixels of the 32x48 frame, the second one exclusive.
CORNERS = np.array([[4, 6, 20, 26], [5, 6, 21, 26], [30, 2, 46, 22]], float)
SCORES = np.array([0.9, 0.8, 0.7])
LABELS = np.array([1, 1, 3])
ALL = {"min_area": 0, "cover_threshold": None}


@pytest.fixture
def build(tmp_path):
    """Writes a model that returns constants, whatever the image."""

    def build(outputs, shape=(1, 3, 32, 48), dtype="float32"):
        helper = onnx.helper
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        image = helper.make_tensor_value_info("images", kind, shape)
        tensors = {
            name: onnx.numpy_helper.from_array(value, name)
            for name, value in outputs.items()
        }
        nodes, infos = [], []
        for name, value in tensors.items():
            nodes.append(helper.make_node("Constant", [], [name], value=value))
            infos.append(
                helper.make_tensor_value_info(name, value.data_type, value.dims)
            )
        graph = helper.make_graph(nodes, "detector", [image], infos)
        opset = helper.make_opsetid("", 13)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
        onnx.save(model, tmp_path / "m.onnx")
        return tmp_path / "m.onnx"

    return build


def separate(corners=CORNERS, batch=False, names=("boxes", "labels", "scores")):
    values = np.float32(corners), LABELS, np.float32(SCORES)
    if batch:
        values = tuple(value[np.newaxis] for value in values)
    return dict(zip(names, values, strict=True))


def centers(corners):
    size = corners[:, 2:] - corners[:, :2]
    return np.concatenate([corners[:, :2] + size / 2, size], axis=1)


def rows(objectness=(0.5,), padding=8):
    """YOLO v5: a confidence of an object before those of four classes."""
    classes = np.zeros((3, 4))
    classes[np.arange(3), LABELS] = SCORES
    anything = np.tile(objectness, (3, 1))
    table = np.concatenate([centers(CORNERS), anything, classes], axis=1)
    table = np.pad(table, [(0, padding), (0, 0)])
    return {"output0": table[np.newaxis].astype("float32")}


def columns():
    """YOLO v8: center and size, then four classes, one column a box."""
    (table,) = rows(()).values()
    return {"output0": np.ascontiguousarray(table.transpose(0, 2, 1))}


def assert_detected(boxes, numbers, factor=1.0):
    """Both ends belong to a box."""
    wanted = np.column_stack([CORNERS, factor * SCORES])[numbers]
    np.testing.assert_allclose(boxes, wanted - [0, 0, 1, 1, 0], atol=1e-4)


# === Outputs ===


@pytest.mark.parametrize(
    ("batch", "names"),
    [(False, ("boxes", "labels", "scores")), (True, ("4587", "4590", "4588"))],
)
def test_separate_outputs(build, batch, names):
    path = build(separate(batch=batch, names=names))
    assert_detected(OnnxDetector(path, **ALL).detect(FRAME), [0, 1, 2])


def test_boxes_are_selected(build):
    path = build(separate())
    assert_detected(OnnxDetector(path, classes=[3], **ALL).detect(FRAME), [2])
    sure = OnnxDetector(path, min_confidence=0.75, **ALL)
    assert_detected(sure.detect(FRAME), [0, 1])
    # Of the first two, equally large, the later one stays.
    assert_detected(OnnxDetector(path).detect(FRAME), [1, 2])
    assert len(OnnxDetector(path, min_area=321).detect(FRAME)) == 0
    path = build(separate(CORNERS + np.array([0, 0, 40, 0])))
    boxes = OnnxDetector(path, **ALL).detect(FRAME)
    assert boxes[:, 2].tolist() == [47, 47, 47]


def test_outputs_of_tensorflow(build):
    boxes = CORNERS[:, [1, 0, 3, 2]] / [32, 48, 32, 48]
    outputs = {
        "detection_boxes": np.float32(boxes[np.newaxis]),
        "detection_classes": np.float32(LABELS[np.newaxis]),
        "detection_scores": np.float32(SCORES[np.newaxis]),
        "num_detections": np.array([2], "float32"),
    }
    path = build(outputs, (1, 32, 48, 3), "uint8")
    assert_detected(OnnxDetector(path, **ALL).detect(FRAME), [0, 1])


@pytest.mark.parametrize(
    ("outputs", "factor"), [(columns(), 1.0), (rows(), 0.5)]
)
def test_a_single_output(build, outputs, factor):
    path = build(outputs)
    detector = OnnxDetector(path, min_confidence=0.3, **ALL)
    # The second box overlaps the first, of the same class, by 15/17.
    assert_detected(detector.detect(FRAME), [0, 2], factor)
    # Another class is not suppressed.
    outputs = columns()
    outputs["output0"][0, 4 + 1, 1], outputs["output0"][0, 4 + 2, 1] = 0, 0.8
    assert len(OnnxDetector(build(outputs), **ALL).detect(FRAME)) == 3


def final(labels, scores=SCORES, num_rows=9):
    """As YOLOv10 gives: corners, confidence, class; padded with zero rows."""
    table = np.column_stack([CORNERS, scores, labels])
    table = np.pad(table, [(0, num_rows - len(table)), (0, 0)])
    return {"output0": table[np.newaxis].astype("float32")}


@pytest.mark.parametrize("labels", [LABELS, [0, 0, 0], [0, 1, 0]])
@pytest.mark.parametrize("num_rows", [3, 9])
def test_final_boxes(build, labels, num_rows):
    detector = OnnxDetector(build(final(labels, num_rows=num_rows)), **ALL)
    # What overlaps is no duplicate any more.
    assert_detected(detector.detect(FRAME), [0, 1, 2])
    chosen = OnnxDetector(detector.path, classes=[labels[2]], **ALL)
    wanted = [i for i in range(3) if labels[i] == labels[2]]
    assert_detected(chosen.detect(FRAME), wanted)


def test_final_boxes_may_be_turned_over_where_they_are_unsure(build):
    output = final([0, 0, 0])
    output["output0"][0, 3] = 9, 9, 8, 8, 0.01, 0
    detector = OnnxDetector(build(output), **ALL)
    assert_detected(detector.detect(FRAME), [0, 1, 2])


@pytest.mark.parametrize("certain", [True, False])
def test_rows_of_one_class_are_no_final_boxes(build, certain):
    table = np.column_stack([centers(CORNERS), SCORES, np.ones(3)])
    # In other cells of the grid, as unsure as the models are of these.
    others = [[40.0, 20, 6, 6, 0.001, 1], [44.0, 28, 4, 4, 0.002, 1]] * 3
    table = np.concatenate([others, table])[np.newaxis].astype("float32")
    table[..., 5] *= 1.0 if certain else 0.8
    detector = OnnxDetector(build({"o": table}), **ALL)
    factor = 1.0 if certain else 0.8
    assert_detected(detector.detect(FRAME), [0, 2], factor)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (final(LABELS, 100 * SCORES), r"up to 90 .* \(1, n, 4 \+ 1 \+ classes"),
        (rows((7.5,)), r"up to 7.5 in the .*, read as \(1, n, 4 \+ 1"),
        ({"o": 50 * columns()["output0"]}, r"up to 45 .* \(1, 4 \+ classes, n"),
        (
            {**separate(), "scores": np.float32(100 * SCORES)},
            "up to 90 in the output of scores",
        ),
    ],
)
def test_confidences_above_1_are_refused(build, output, message):
    with pytest.raises(ValueError, match=message):
        OnnxDetector(build(output), **ALL).detect(FRAME)


@pytest.mark.parametrize("batch", [True, False])
def test_shares_of_the_input_are_no_pixels(build, batch):
    shares = CORNERS / [48, 32, 48, 32]
    names = "bboxes", "labels", "scores"
    message = "are they shares of the input.*multiplied.*`detection_boxes`"
    detector = OnnxDetector(build(separate(shares, batch, names)))
    with pytest.raises(ValueError, match=message):
        detector.detect(FRAME)
    # One that ends beyond the input does not count where it is unsure.
    shares[2] += 0.2
    detector = OnnxDetector(build(separate(shares)), min_confidence=0.75)
    with pytest.raises(ValueError, match=message):
        detector.detect(FRAME)
    unsure = OnnxDetector(detector.path, min_confidence=0.9)
    assert len(unsure.detect(FRAME)) == 0
    # Of a single output likewise.
    output = columns()
    output["output0"][0, :4] /= np.float32([48, 32, 48, 32])[:, np.newaxis]
    with pytest.raises(ValueError, match=message):
        OnnxDetector(build(output)).detect(FRAME)
    output = final(LABELS)
    output["output0"][0, :, :4] /= [48, 32, 48, 32]
    with pytest.raises(ValueError, match=message):
        OnnxDetector(build(output)).detect(FRAME)


def test_pixels_are_no_shares(build):
    names = "detection_boxes", "detection_classes", "detection_scores"
    detector = OnnxDetector(build(separate(names=names)))
    with pytest.raises(ValueError, match="up to 46 .*x first and another name"):
        detector.detect(FRAME)
    # A sure box may hold few pixels, even where nothing else is seen.
    few = np.float32([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]])
    assert len(OnnxDetector(build(separate(few)), **ALL).detect(FRAME)) == 3


def test_forms_of_a_single_output(build):
    # Objectness alone.
    table = rows(objectness=(0.9,))["output0"][..., :5]
    detector = OnnxDetector(build({"o": table}), **ALL)
    assert len(detector.detect(FRAME)) == 2
    with pytest.raises(ValueError, match="must tell boxes from numbers"):
        OnnxDetector(build(rows(padding=6))).detect(FRAME)
    with pytest.raises(ValueError, match="must have 4 numbers"):
        OnnxDetector(build({"o": np.zeros((1, 9, 4), "f4")})).detect(FRAME)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"out": np.zeros((2, 9, 6), "float32")}, r"must be of shape \(1, n"),
        ({"x": np.zeros(3, "f4"), "y": np.zeros(3, "f4")}, "boxes .*, scores"),
    ],
)
def test_outputs_of_other_forms_are_refused(build, outputs, message):
    with pytest.raises(ValueError, match=message):
        OnnxDetector(build(outputs))


# === Inputs ===


def test_boxes_come_back_to_the_frame(build):
    # 48x32 becomes 96x64 within 96x96: 16 rows of margin above.
    corners = CORNERS * 2 + [0, 16, 0, 16]
    detector = OnnxDetector(build(separate(corners), (1, 3, 96, 96)), **ALL)
    assert_detected(detector.detect(FRAME), [0, 1, 2])


def fed(shape, kind="float"):
    """Returns what a model of some input is fed."""
    node = SimpleNamespace(name="images", shape=shape, type=f"tensor({kind})")
    session = SimpleNamespace(get_inputs=lambda: [node])
    return _Input(session, "m.onnx").fit(FRAME)[0]


def test_pixels_are_scaled_and_arranged():
    tensor = fed((1, 32, 48, 3))
    assert tensor.dtype == np.float32
    np.testing.assert_allclose(tensor[0], FRAME / 255, atol=1e-6)
    tensor = fed((3, 32, 48), "float16")
    assert tensor.dtype == np.float16
    wanted = FRAME.transpose(2, 0, 1) / 255
    np.testing.assert_allclose(tensor, wanted, atol=1e-3)


def test_letterboxes_have_gray_margins():
    tensor = fed((1, 96, 96, 3), "uint8")[0]
    np.testing.assert_array_equal(tensor[:16], 114)
    np.testing.assert_array_equal(tensor[80:], 114)
    np.testing.assert_array_equal(tensor[16:80], cv2.resize(FRAME, (96, 64)))


def test_free_sizes_are_those_of_the_frame():
    # Rounded up to a multiple of 32, with margins, and not enlarged.
    tensor = fed((1, "height", "width", 3), "uint8")
    assert tensor.shape == (1, 32, 64, 3)
    np.testing.assert_array_equal(tensor[0, :, 8:56], FRAME)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((2, 3, 32, 48), "float"),
        ((1, 3, 32, 3), "float"),
        ((1, 1, 32, 48), "float"),
        ((1, "a", "b", "c"), "float"),
        ((32, 48), "float"),
        ((1, 3, 32, 48), "int64"),
    ],
)
def test_inputs_that_are_no_image_are_refused(shape, kind):
    with pytest.raises(ValueError, match="must be one color image"):
        fed(shape, kind)


# === Detector ===


def test_videos_give_boxes_for_each_frame(build, write):
    video = write([draw_square(10 + t, 12) for t in range(3)])
    detector = OnnxDetector(build(separate()), classes=[1, 3, 1])
    assert detector.settings["classes"] == [1, 3]
    boxes = list(detector.boxes(video))
    assert len(boxes) == 3
    np.testing.assert_array_equal(boxes[1], detector.detect(FRAME))
    assert detector.files(video) == [detector.path]
    corners = CORNERS.copy()
    corners[0, 0] = np.inf
    detector = OnnxDetector(build(separate(corners)))
    with pytest.raises(ValueError, match=r"finite.*frame 0 of .*clip"):
        list(detector.boxes(video))


def test_files_that_are_no_models_are_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        OnnxDetector(tmp_path / "missing.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"broken\.onnx.*cannot be loaded"):
        OnnxDetector(tmp_path / "broken.onnx")


def test_without_onnxruntime_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"keras-sspcab\[export\]"):
        OnnxDetector(tmp_path / "m.onnx")
