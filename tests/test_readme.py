"""The README's Python examples run as they stand."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from keras_sspcab.applications import FutureFrame
from keras_sspcab.data import write_texture_folder

README = Path(__file__).parents[1] / "README.md"


def examples():
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_one_layer():
    (code,) = [c for c in examples() if "keras.Sequential" in c]
    scope = {"images": np.zeros((4, 64, 64, 3), "float32")}
    exec(code, scope)
    assert "sspcab_loss" in scope["model"].history.history


def test_one_detector(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_texture_folder(
        "screws",
        image_size=64,
        num_train=20,
        num_test_good=4,
        num_test_defective=5,
    )
    (code,) = [c for c in examples() if "MultiScalePaDiM" in c]
    scope = {}
    exec(code, scope)
    assert scope["result"]["anomaly_map"].shape == (9, 320, 320)
    assert Path("screws.keras").is_file()


# So few images are enough to run the example, not for a good threshold.
@pytest.mark.filterwarnings("ignore:The threshold is rough")
def test_the_whole_road(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    sizes = {"num_train": 10, "num_test_good": 2, "num_test_defective": 3}
    write_texture_folder("screws", image_size=64, **sizes)
    shutil.copytree("screws/train/good", "new_images")
    (code,) = [c for c in examples() if "Run.create" in c]
    scope = {}
    exec(code.replace("epochs=20", "epochs=1"), scope)
    assert 0 <= scope["metrics"]["image_auroc"] <= 1
    assert len(scope["rows"]) == 10
    assert Path("runs/screws/report.html").is_file()
    assert list(Path("runs/screws/export/onnx").glob("*.onnx"))


def test_one_live_video():
    (code,) = [c for c in examples() if "VideoStream" in c]
    model = FutureFrame(
        (3, 16, 16, 1),
        base_width=2,
        flow_estimator="none",
        adversarial_weight=0,
    )
    scope = {"model": model, "frame": np.zeros((40, 60, 3), "uint8")}
    exec(code, scope)
    assert scope["scored"] is None
    for _ in range(2):
        scope["scored"] = scope["stream"].push(scope["frame"])
    assert scope["scored"].frame == 2
