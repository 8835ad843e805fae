"""Work that must not be done in Python for each pixel, float or box.

What is counted are the instructions of Python's own machine: the same on every
computer, busy or not, and nearly the same in every version of Python.
"""

import sys

import numpy as np
import orjson
import pytest

tf = pytest.importorskip("tensorflow")
server = pytest.importorskip("keras_sspcab.export.serving.server.json_tensors")

from keras_sspcab.data.video.frames import list_frames  # noqa: E402
from keras_sspcab.export.serving.server.predictor import (  # noqa: E402
    Prediction,
)
from keras_sspcab.export.serving.server.signature import (  # noqa: E402
    Signature,
)
from keras_sspcab.metrics import rbdc_tbdc  # noqa: E402
from keras_sspcab.metrics.pixel_level import PixelScores  # noqa: E402
from keras_sspcab.runs.config import EvaluationConfig  # noqa: E402
from keras_sspcab.runs.regions import RegionLevels  # noqa: E402

COUNT = 500


def count_instructions(function):
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


def read_floats(count, folder):
    row = tf.TensorSpec((None, None), tf.float32)
    signature = Signature("", {"x": row}, {"y": row}, lambda x: x)
    body = orjson.dumps({"instances": [[0.5] * count]})
    return lambda: server.JsonRequest.parse(body).arrays(signature, 4)


def write_floats(count, folder):
    outputs = {"y": np.ones((1, count), "float32")}
    return lambda: server.write_json(Prediction("", 1, "", outputs), True)


def squares(count):
    """An image with a square of two pixels in every other one, and a map."""
    image = np.zeros((4, 4 * count), bool)
    image[:2].reshape(2, count, 4)[..., :2] = True
    return image


def count_regions(count, folder):
    mask = squares(count)

    def score():
        pixels = PixelScores()
        pixels.add(mask, np.linspace(0, 1, mask.size).reshape(mask.shape))
        pixels.compute()

    return score


def cut_regions(count, folder):
    levels = RegionLevels(
        (0.5,), None, "", EvaluationConfig(region_smoothing=0)
    )
    anomaly_map = squares(count).astype("float32")
    return lambda: levels.cut(anomaly_map, anomaly_map.shape)


def match_boxes(count, folder):
    rng = np.random.default_rng(0)
    boxes = rng.integers(0, 100, (count, 2))
    columns = {
        "video": np.full(count, "a"),
        "frame": np.arange(count) // 4,
        "x_min": boxes[:, 0],
        "y_min": boxes[:, 1],
        "x_max": boxes[:, 0] + 20,
        "y_max": boxes[:, 1] + 20,
    }
    detections = {**columns, "score": rng.random(count)}
    tracks = {**columns, "track": np.arange(count) % 4}
    return lambda: rbdc_tbdc(detections, tracks, count)


def sort_frames(count, folder):
    for number in range(count):
        (folder / f"{number}.png").touch()
    return lambda: list_frames(str(folder))


# Instructions for each item more: of a float, of a region, of a box, a file.
RECORDED = {
    read_floats: 0,
    write_floats: 0,
    count_regions: 0,
    cut_regions: 42,
    match_boxes: 14,
    sort_frames: 277,
}


@pytest.mark.parametrize("make", RECORDED, ids=lambda make: make.__name__)
def test_hot_paths_do_no_more_for_each_item(make, tmp_path):
    counts = []
    for number in (COUNT, 3 * COUNT):
        folder = tmp_path / str(number)
        folder.mkdir()
        function = make(number, folder)
        function()  # what is made on first use
        counts.append(count_instructions(function))
    each = (counts[1] - counts[0]) / (2 * COUNT)
    assert each <= 1.5 * RECORDED[make] + 1, counts


def test_instructions_are_counted():
    once = count_instructions(lambda: [n + 1 for n in range(10)])
    twice = count_instructions(lambda: [n + 1 for n in range(20)])
    assert twice - once in range(30, 80)
