import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.metrics import roc_auc_score

from keras_sspcab.runs import RunFolder, load_detector
from keras_sspcab.runs.outputs import read_image_scores


def metrics_of(run):
    return json.loads((run / "metrics.json").read_text())


@pytest.fixture(scope="module")
def rows(evaluated):
    return read_image_scores(RunFolder(str(evaluated)))


@pytest.fixture(scope="module")
def metrics(evaluated):
    return metrics_of(evaluated)


def _pixels(path):
    content = tf.io.read_file(path)
    return tf.io.decode_png(content, channels=1).numpy() / np.float32(255)


def test_scores_are_those_of_the_model(evaluated, rows, images):
    model = load_detector(str(evaluated))
    outputs = model.predict(
        np.stack([_pixels(row.path) for row in rows]), verbose=0
    )
    np.testing.assert_allclose(
        [row.score for row in rows],
        outputs["anomaly_score"],
        rtol=1e-4,
        atol=1e-3,
    )
    flags = [row.is_anomalous for row in rows]
    assert flags == outputs["is_anomalous"].tolist()
    for row, anomaly_map in zip(rows, outputs["anomaly_map"], strict=True):
        assert np.load(row.map_path).dtype == np.float16
        np.testing.assert_allclose(
            row.load_map(), anomaly_map, rtol=1e-2, atol=1e-2
        )
    assert [row.defect for row in rows] == (
        ["good"] * 4 + ["hole"] * 2 + ["stain"] * 2
    )
    for row in rows:
        folder = images / "test" / row.defect
        assert row.label == int(row.defect != "good")
        assert row.path.startswith(str(folder))
        name = os.path.basename(row.path).replace(".png", "_mask.png")
        mask = images / "ground_truth" / row.defect / name
        assert row.mask_path == (str(mask) if row.label else None)


def test_metrics_are_those_of_the_rows(evaluated, rows, metrics):
    def auroc(chosen):
        return roc_auc_score(
            [row.label for row in chosen], [row.score for row in chosen]
        )

    def pixel_auroc(chosen):
        masks = [
            _pixels(row.mask_path)[..., 0] > 0
            if row.mask_path
            else np.zeros((48, 48), bool)
            for row in chosen
        ]
        maps = [row.load_map() for row in chosen]
        area = roc_auc_score(np.ravel(masks), np.ravel(maps))
        return pytest.approx(area, abs=1e-3)

    assert metrics["num_test_images"] == 8
    assert metrics["num_defective_images"] == 4
    assert metrics["image_auroc"] == pytest.approx(auroc(rows))
    assert metrics["pixel_auroc"] == pixel_auroc(rows)
    assert list(metrics["per_defect"]) == ["hole", "stain"]
    for defect, values in metrics["per_defect"].items():
        chosen = [row for row in rows if row.defect in ("good", defect)]
        assert values["num_images"] == 2
        assert values["image_auroc"] == pytest.approx(auroc(chosen))
        assert values["pixel_auroc"] == pixel_auroc(chosen)
    flags = [row.is_anomalous for row in rows]
    assert metrics["false_alarm_rate"] == np.mean(flags[:4])
    assert metrics["detection_rate"] == np.mean(flags[4:])
    calibration = load_detector(str(evaluated)).calibration
    assert metrics["calibration"] == calibration.summary()


def test_other_images_and_missing_masks(invoke, copy, images, tmp_path):
    data = tmp_path / "other"
    shutil.copytree(images, data)
    (data / "ground_truth" / "hole" / "000_mask.png").unlink()
    (data / "test" / "stain" / "001.png").write_bytes(b"broken")
    (data / "ground_truth" / "stain" / "001_mask.png").unlink()
    result = invoke("evaluate", copy, f"--data={data}", code=2)
    assert "001.png: not an image" in result.stderr
    result = invoke("evaluate", copy, f"--data={data}", "--on-error=skip")
    assert "1 defective images have no mask" in result.stderr
    metrics = metrics_of(copy)
    assert metrics["num_test_images"] == 7
    assert 0 <= metrics["pixel_auroc"] <= 1


def test_settings_for_videos_are_refused(invoke, copy):
    smoothing = "--set=evaluation.smoothing=median"
    result = invoke("evaluate", copy, smoothing, code=2)
    assert "evaluation.smoothing is for videos" in result.stderr
    assert not (copy / "metrics.json").exists()


def test_gaps_in_the_test_data_are_told(invoke, copy, images, tmp_path):
    normal = tmp_path / "normal"
    shutil.copytree(images / "train", normal / "train")
    shutil.copytree(images / "test" / "good", normal / "test" / "good")
    result = invoke("evaluate", copy, f"--data={normal}")
    assert "Metrics need defective images" in result.stderr
    metrics = metrics_of(copy)
    assert "image_auroc" not in metrics
    assert metrics["num_test_images"] == 4
    assert "false_alarm_rate" in metrics
    assert metrics["per_defect"] == {}

    defective = tmp_path / "defective"
    shutil.copytree(images, defective)
    shutil.rmtree(defective / "test" / "good")
    result = invoke("evaluate", copy, f"--data={defective}")
    assert "Image metrics need normal images as well" in result.stderr
    metrics = metrics_of(copy)
    assert "image_auroc" not in metrics
    assert "pixel_auroc" in metrics

    result = invoke("evaluate", copy, f"--data={images / 'train' / 'good'}")
    assert "no test images; the normal images were scored" in result.stderr
    assert "12 of the 12 normal images" in result.stderr.replace("\n", " ")
    run = RunFolder(str(copy))
    assert run.record["evaluated"]["split"] == "normal"
    assert metrics_of(copy)["num_test_images"] == 12


def test_training_data_that_have_moved_are_known(
    invoke, copy, images, tmp_path
):
    moved = tmp_path / "moved"
    shutil.copytree(images / "train", moved / "train")
    result = invoke("evaluate", copy, f"--data={moved}")
    output = result.stderr.replace("\n", " ")
    assert "no test images; the held-out normal images" in output
    # What the threshold was measured on says nothing about it.
    assert "measured on these very images" in output
    assert RunFolder(str(copy)).record["evaluated"]["split"] == "validation"
    assert metrics_of(copy)["num_test_images"] == 3
    result = invoke("calibrate", copy, f"--data={moved}")
    assert "have the names of those" in result.stderr.replace("\n", " ")


# === Image statistics ===


def _brighten(folder, gain):
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            pixels = gain * np.asarray(image, "float32")
        Image.fromarray(np.uint8(np.clip(pixels, 0, 255))).save(path)


@pytest.fixture
def shortcut(images, tmp_path):
    """The images, those with defects twice as bright."""
    data = Path(shutil.copytree(images, tmp_path / "shortcut"))
    for defect in ("hole", "stain"):
        _brighten(data / "test" / defect, 2.0)
    return data


def test_test_sets_with_a_shortcut_are_told(invoke, copy, images, shortcut):
    for data, is_told in ((images, False), (shortcut, True)):
        result = invoke("evaluate", copy, f"--data={data}")
        for text in ("all", "hole", "stain", "image AUROC", "AUPRO"):
            assert text in result.stdout
        assert ("Image statistics alone" in result.stderr) is is_told
        invoke("report", copy)
        page = (copy / "report.html").read_text()
        assert ("Image statistics alone" in page) is is_told
    assert metrics_of(copy)["image_statistics_auroc"] == 1.0


def _statistics_auroc_of(invoke, run, data):
    invoke("evaluate", run, f"--data={data}")
    return metrics_of(run).get("image_statistics_auroc")


def _forget_training_images(run):
    path = run / "config.toml"
    text = re.sub(r"(?m)^path = .*", 'path = "/nowhere"', path.read_text())
    path.write_text(text)


def test_other_normal_images_stand_in_for_those_of_the_run(
    invoke, copy, shortcut
):
    # Normal images as bright as the defective ones: the good test images are
    # the odd ones, unless it is compared with those of the run.
    _brighten(shortcut / "train" / "good", 2.0)
    assert _statistics_auroc_of(invoke, copy, shortcut) == 1.0
    _forget_training_images(copy)
    assert _statistics_auroc_of(invoke, copy, shortcut) == 0.0


def test_without_two_normal_images_there_is_no_such_measure(
    invoke, copy, images, tmp_path
):
    data = Path(shutil.copytree(images, tmp_path / "broken"))
    normal = sorted((data / "train" / "good").glob("*.png"))
    _forget_training_images(copy)
    # Broken images do not stop an evaluation.
    normal[0].write_bytes(b"broken")
    assert _statistics_auroc_of(invoke, copy, data) is not None
    # The spread of a single one is unknown.
    for path in normal[2:]:
        path.write_bytes(b"broken")
    assert _statistics_auroc_of(invoke, copy, data) is None


def test_failed_evaluation_leaves_the_one_before(
    invoke, evaluated, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    before = sorted(path.name for path in run.rglob("*"))
    written = 0
    save = np.save

    def fail(path, array):
        nonlocal written
        written += 1
        if written == 3:
            raise OSError("disk full")
        save(path, array)

    monkeypatch.setattr(np, "save", fail)
    result = invoke("evaluate", run, code=2)
    assert "disk full" in result.stderr
    assert sorted(path.name for path in run.rglob("*")) == before
