import itertools
import sys

import numpy as np
import pytest
from object_videos import draw_square

from keras_sspcab.data.objects import OnnxDetector

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")

FRAME = draw_square(10, 12)
# Corners in pixels of the 32x48 frame, the second one exclusive.
CORNERS = np.array([[4, 6, 20, 26], [5, 6, 21, 26], [30, 2, 46, 22]], float)
SCORES = np.array([0.9, 0.8, 0.7])
LABELS = np.array([1, 1, 3])
ALL = {"min_area": 0, "cover_threshold": None}


def build(path, outputs, shape=(1, 3, 32, 48), dtype="float32", name="images"):
    """Writes a model that returns constants, whatever the image."""
    helper = onnx.helper
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    image = helper.make_tensor_value_info(name, kind, shape)
    zero = onnx.numpy_helper.from_array(np.zeros((), "float32"), "zero")
    # The outputs depend on the input, so that it stays in the graph.
    nodes = [
        helper.make_node("Cast", [name], ["cast"], to=1),
        helper.make_node("ReduceMax", ["cast"], ["highest"], keepdims=0),
        helper.make_node("Mul", ["highest", "zero"], ["nothing"]),
    ]
    constants, infos = [zero], []
    for key, value in outputs.items():
        to = helper.np_dtype_to_tensor_dtype(value.dtype)
        constants.append(
            onnx.numpy_helper.from_array(
                value.astype("float32"), f"{key}_value"
            )
        )
        nodes += [
            helper.make_node(
                "Add", [f"{key}_value", "nothing"], [f"{key}_sum"]
            ),
            helper.make_node("Cast", [f"{key}_sum"], [key], to=to),
        ]
        infos.append(helper.make_tensor_value_info(key, to, value.shape))
    graph = helper.make_graph(nodes, "detector", [image], infos, constants)
    return save(graph, path)


def save(graph, path):
    opset = onnx.helper.make_opsetid("", 13)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def build_identity(path, shape, dtype="float32"):
    """Writes a model whose single output are rows of the image's values."""
    helper = onnx.helper
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    image = helper.make_tensor_value_info("images", kind, shape)
    output = helper.make_tensor_value_info("rows", 1, (1, None, 6))
    sizes = onnx.numpy_helper.from_array(np.array([1, -1, 6]), "sizes")
    nodes = [
        helper.make_node("Cast", ["images"], ["cast"], to=1),
        helper.make_node("Reshape", ["cast", "sizes"], ["rows"]),
    ]
    return save(
        helper.make_graph(nodes, "identity", [image], [output], [sizes]), path
    )


def separate(corners=CORNERS, batch=False, names=("boxes", "labels", "scores")):
    values = (
        np.float32(corners),
        LABELS.astype("int64"),
        SCORES.astype("float32"),
    )
    if batch:
        values = tuple(value[np.newaxis] for value in values)
    return dict(zip(names, values, strict=True))


def centers(corners):
    size = corners[:, 2:] - corners[:, :2]
    return np.concatenate([corners[:, :2] + size / 2, size], axis=1)


def columns(corners=CORNERS, padding=8):
    """YOLO v8: center and size, then four classes, one column a box."""
    classes = np.zeros((len(corners), 4))
    classes[np.arange(3), LABELS] = SCORES
    table = np.concatenate([centers(corners), classes], axis=1)
    table = np.concatenate([table, np.zeros((padding, 8))])
    return {"output0": table.T[np.newaxis].astype("float32")}


def rows(corners=CORNERS, objectness=0.5, padding=8):
    """YOLO v5: a confidence of an object before those of four classes."""
    classes = np.zeros((len(corners), 4))
    classes[np.arange(3), LABELS] = SCORES
    anything = np.full((len(corners), 1), objectness)
    table = np.concatenate([centers(corners), anything, classes], axis=1)
    table = np.concatenate([table, np.zeros((padding, 9))])
    return {"output0": table[np.newaxis].astype("float32")}


def inclusive(corners, scores):
    boxes = np.column_stack([corners, scores])
    boxes[:, 2:4] -= 1
    return boxes


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize(
    "names",
    [("boxes", "labels", "scores"), ("a", "b", "c"), ("4587", "4590", "4588")],
)
def test_separate_outputs(tmp_path, batch, names):
    path = build(tmp_path / "m.onnx", separate(batch=batch, names=names))
    boxes = OnnxDetector(path, **ALL).detect(FRAME)
    np.testing.assert_allclose(boxes, inclusive(CORNERS, SCORES), atol=1e-5)


def test_classes_and_confidences_select(tmp_path):
    path = build(tmp_path / "m.onnx", separate())
    boxes = OnnxDetector(path, classes=[3], **ALL).detect(FRAME)
    np.testing.assert_allclose(
        boxes, inclusive(CORNERS[2:], SCORES[2:]), atol=1e-5
    )
    sure = OnnxDetector(path, min_confidence=0.75, **ALL).detect(FRAME)
    assert len(sure) == 2
    # Of the first two, equally large, the later one stays.
    distinct = OnnxDetector(path).detect(FRAME)
    np.testing.assert_allclose(
        distinct, inclusive(CORNERS[1:], SCORES[1:]), atol=1e-5
    )
    assert len(OnnxDetector(path, min_area=321).detect(FRAME)) == 0


def test_outputs_of_tensorflow(tmp_path):
    size = np.array([32, 48, 32, 48])
    boxes = (CORNERS[:, [1, 0, 3, 2]] / size)[np.newaxis]
    path = build(
        tmp_path / "m.onnx",
        {
            "detection_boxes": boxes.astype("float32"),
            "detection_classes": LABELS[np.newaxis].astype("float32"),
            "detection_scores": SCORES[np.newaxis].astype("float32"),
            "num_detections": np.array([2], "float32"),
        },
        shape=(1, 32, 48, 3),
        dtype="uint8",
    )
    found = OnnxDetector(path, **ALL).detect(FRAME)
    np.testing.assert_allclose(
        found, inclusive(CORNERS[:2], SCORES[:2]), atol=1e-4
    )


@pytest.mark.parametrize(
    ("outputs", "factor"), [(columns(), 1.0), (rows(), 0.5)]
)
def test_a_single_output(tmp_path, outputs, factor):
    path = build(tmp_path / "m.onnx", outputs)
    detector = OnnxDetector(path, min_confidence=0.3, **ALL)
    # The second box overlaps the first, of the same class, by 15/17.
    np.testing.assert_allclose(
        detector.detect(FRAME),
        inclusive(CORNERS[[0, 2]], factor * SCORES[[0, 2]]),
        atol=1e-5,
    )
    for threshold, count in ((None, 3), (0.89, 3), (0.87, 2)):
        detector = OnnxDetector(
            path, min_confidence=0.3, iou_threshold=threshold, **ALL
        )
        assert len(detector.detect(FRAME)) == count


def test_suppression_keeps_other_classes(tmp_path):
    outputs = columns()
    output = outputs["output0"]
    output[0, 4 + 1, 1], output[0, 4 + 2, 1] = 0, 0.8
    path = build(tmp_path / "m.onnx", outputs)
    assert len(OnnxDetector(path, **ALL).detect(FRAME)) == 3


def test_the_form_of_an_output_can_be_stated(tmp_path):
    # Without padding there are fewer boxes than numbers to each.
    path = build(tmp_path / "m.onnx", rows(objectness=1.0, padding=0))
    boxes = OnnxDetector(path, output="rows", **ALL).detect(FRAME)
    np.testing.assert_allclose(
        boxes, inclusive(CORNERS[[0, 2]], SCORES[[0, 2]]), atol=1e-5
    )
    square = build(tmp_path / "s.onnx", rows(padding=6))
    with pytest.raises(ValueError, match=r"State output=\"rows\""):
        OnnxDetector(square).detect(FRAME)


def test_box_forms_and_units(tmp_path):
    expected = inclusive(CORNERS[[0, 2]], SCORES[[0, 2]])
    size = CORNERS[:, 2:] - CORNERS[:, :2]
    forms = {
        "xyxy": CORNERS,
        "yxyx": CORNERS[:, [1, 0, 3, 2]],
        "xywh": np.concatenate([CORNERS[:, :2], size], axis=1),
        "cxcywh": centers(CORNERS),
    }
    for form, values in forms.items():
        units = [32, 48] * 2 if form == "yxyx" else [48, 32] * 2
        for normalized in (False, True):
            output = columns()["output0"]
            output[0, :4, :3] = (values / units if normalized else values).T
            path = build(tmp_path / "m.onnx", {"output0": output})
            detector = OnnxDetector(
                path, box_form=form, normalized=normalized, **ALL
            )
            np.testing.assert_allclose(
                detector.detect(FRAME), expected, atol=1e-4
            )


def test_masks_after_classes_are_left_out(tmp_path):
    output = columns()["output0"]
    masks = np.full((1, 5, output.shape[2]), 9, "float32")
    outputs = {
        "output0": np.concatenate([output, masks], axis=1),
        "protos": np.zeros((1, 5, 8, 8), "float32"),
    }
    path = build(tmp_path / "m.onnx", outputs)
    with pytest.raises(
        ValueError, match="output0.*protos.*the first one alone"
    ):
        OnnxDetector(path)
    detector = OnnxDetector(path, output="columns", num_classes=4, **ALL)
    np.testing.assert_allclose(
        detector.detect(FRAME),
        inclusive(CORNERS[[0, 2]], SCORES[[0, 2]]),
        atol=1e-5,
    )


def test_one_class_of_its_own(tmp_path):
    table = np.zeros((1, 9, 5), "float32")
    table[0, 0] = [20, 15, 10, 10, 0.9]
    path = build(tmp_path / "m.onnx", {"output0": table})
    boxes = OnnxDetector(path, **ALL).detect(FRAME)
    np.testing.assert_allclose(boxes, [[15, 10, 24, 19, 0.9]], atol=1e-5)


@pytest.mark.parametrize(
    ("resize", "to_input"),
    [
        # 48x32 becomes 96x64 within 96x96: 16 rows of margin above.
        ("letterbox", lambda c: c * 2 + [0, 16, 0, 16]),
        ("stretch", lambda c: c * [2, 3, 2, 3]),
    ],
)
def test_boxes_come_back_to_the_frame(tmp_path, resize, to_input):
    path = build(
        tmp_path / "m.onnx", separate(to_input(CORNERS)), (1, 3, 96, 96)
    )
    boxes = OnnxDetector(path, resize=resize, **ALL).detect(FRAME)
    np.testing.assert_allclose(boxes, inclusive(CORNERS, SCORES), atol=1e-4)


def test_boxes_are_clipped_to_the_frame(tmp_path):
    corners = np.array([[-5, -5, 60, 40], [40, 20, 50, 33], [1, 1, 3, 3]])
    path = build(tmp_path / "m.onnx", separate(corners))
    boxes = OnnxDetector(path, **ALL).detect(FRAME)[:, :4]
    assert boxes.tolist() == [[0, 0, 47, 31], [40, 20, 47, 31], [1, 1, 2, 2]]


def seen(tmp_path, shape, dtype="float32", frame=FRAME, **arguments):
    """Returns what a model is fed, in its own layout."""
    path = build_identity(tmp_path / "identity.onnx", shape, dtype)
    detector = OnnxDetector(path, output="rows", **arguments)
    values = {}
    session = detector._session

    class Recording:
        def get_outputs(self):
            return session.get_outputs()

        def run(self, names, inputs):
            values.update(inputs)
            return session.run(names, inputs)

    detector._session = Recording()
    detector.detect(frame)
    return values["images"]


def test_float_inputs_are_scaled(tmp_path):
    tensor = seen(tmp_path, (1, 3, 32, 48))
    assert tensor.dtype == np.float32
    np.testing.assert_allclose(
        tensor, FRAME.transpose(2, 0, 1)[None] / 255, atol=1e-6
    )
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.4])
    tensor = seen(tmp_path, (1, 3, 32, 48), mean=mean, std=std)
    np.testing.assert_allclose(
        tensor.transpose(0, 2, 3, 1)[0], (FRAME / 255 - mean) / std, atol=1e-5
    )


def test_bytes_bgr_and_channels_last(tmp_path):
    tensor = seen(tmp_path, (1, 32, 48, 3), "uint8", colors="bgr")
    assert tensor.dtype == np.uint8
    np.testing.assert_array_equal(tensor[0], FRAME[..., ::-1])


def test_inputs_without_a_batch_and_of_half_precision(tmp_path):
    tensor = seen(tmp_path, (3, 32, 48), "float16", scale=1.0)
    assert tensor.dtype == np.float16
    np.testing.assert_array_equal(tensor, FRAME.transpose(2, 0, 1))


def test_letterboxes_have_gray_margins(tmp_path):
    tensor = seen(tmp_path, (1, 96, 96, 3), "uint8")[0]
    np.testing.assert_array_equal(tensor[:16], 114)
    np.testing.assert_array_equal(tensor[80:], 114)
    np.testing.assert_array_equal(tensor[16:80], cv2.resize(FRAME, (96, 64)))


def test_free_sizes_are_those_of_the_frame(tmp_path):
    shape = (1, 3, "height", "width")
    stretched = seen(tmp_path, shape, resize="stretch")
    assert stretched.shape == (1, 3, 32, 48)
    # Rounded up to a multiple of 32, with margins, and not enlarged.
    tensor = seen(tmp_path, shape, scale=1.0)
    assert tensor.shape == (1, 3, 32, 64)
    np.testing.assert_array_equal(
        tensor[0, :, :, 8:56], FRAME.transpose(2, 0, 1)
    )
    stated = seen(tmp_path, shape, input_size=(64, 96), scale=1.0)
    np.testing.assert_array_equal(
        stated[0], cv2.resize(FRAME, (96, 64)).transpose(2, 0, 1)
    )


def test_videos_give_boxes_for_each_frame(tmp_path, write):
    video = write([draw_square(10 + t, 12) for t in range(3)])
    path = build(tmp_path / "m.onnx", separate())
    detector = OnnxDetector(path)
    boxes = list(detector.boxes(video))
    assert len(boxes) == 3
    np.testing.assert_array_equal(boxes[1], detector.detect(FRAME))
    assert detector.files(video) == [str(path)]


def test_boxes_that_are_not_finite_are_refused(tmp_path, write):
    video = write([FRAME])
    corners = CORNERS.copy()
    corners[0, 0] = np.inf
    path = build(tmp_path / "m.onnx", separate(corners))
    with pytest.raises(ValueError, match=r"finite.*frame 0 of .*clip"):
        list(OnnxDetector(path).boxes(video))


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2, 3, 32, 48), "float32", "one image at a time"),
        ((1, 3, 32, 3), "float32", 'State layout="nchw"'),
        ((1, "a", "b", "c"), "float32", "which axis"),
        ((1, 1, 32, 48), "float32", "which axis"),
        ((32, 48), "float32", "must be an image"),
        ((1, 3, 32, 48), "int64", "must be an image"),
    ],
)
def test_inputs_that_are_no_image_are_refused(tmp_path, shape, dtype, message):
    path = build(tmp_path / "m.onnx", separate(), shape, dtype)
    with pytest.raises(ValueError, match=message):
        OnnxDetector(path)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"out": np.zeros((3, 9), "float32")}, r"must be of shape \(1, n"),
        ({"out": np.zeros((2, 9, 6), "float32")}, r"must be of shape \(1, n"),
        ({"x": np.zeros(3, "f4"), "y": np.zeros(3, "f4")}, "boxes .*, scores"),
    ],
)
def test_outputs_of_other_forms_are_refused(tmp_path, outputs, message):
    path = build(tmp_path / "m.onnx", outputs)
    with pytest.raises(ValueError, match=message):
        OnnxDetector(path)


def test_files_that_are_no_models_are_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        OnnxDetector(tmp_path / "missing.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"broken\.onnx.*cannot be loaded"):
        OnnxDetector(tmp_path / "broken.onnx")


@pytest.mark.parametrize(
    "arguments",
    [
        {"iou_threshold": 0},
        {"iou_threshold": 2},
        {"std": (1, 0, 1)},
        {"mean": (1, 2)},
        {"num_classes": 0},
        {"input_size": (64, 64)},
        {"layout": "nhcw"},
        {"min_confidence": 1.0},
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path, arguments):
    path = build(tmp_path / "m.onnx", separate())
    (name,) = arguments
    with pytest.raises(ValueError, match=name):
        OnnxDetector(path, **arguments)


def test_settings_tell_arguments_apart(tmp_path):
    path = build(tmp_path / "m.onnx", separate())
    variants = [
        {},
        {"classes": [1]},
        {"colors": "bgr"},
        {"iou_threshold": 0.5},
        {"resize": "stretch"},
        {"min_area": 4},
        {"mean": (1, 1, 1)},
    ]
    settings = [OnnxDetector(path, **v).settings for v in variants]
    for first, second in itertools.combinations(settings, 2):
        assert first != second


def test_without_onnxruntime_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"keras-sspcab\[export\]"):
        OnnxDetector(tmp_path / "m.onnx")
