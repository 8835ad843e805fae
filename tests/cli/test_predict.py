import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from keras_sspcab.applications import AutoEncoder
from keras_sspcab.runs import load_detector
from tests.cli.cells import read_csv


@pytest.fixture
def scores(evaluated):
    rows = read_csv(evaluated / "predictions" / "scores.csv")
    return {row["path"]: row for row in rows}


def saved(run, tmp_path, **calibration):
    """The model of a run with other values in its calibration."""
    model = load_detector(str(run))
    model.calibration = dataclasses.replace(model.calibration, **calibration)
    path = tmp_path / "changed.keras"
    model.save(path)
    return path


def test_scores_equal_those_of_the_evaluation(
    invoke, trained, images, scores, tmp_path
):
    out = tmp_path / "new" / "scores.csv"
    result = invoke(
        "predict",
        trained,
        images / "test" / "hole",
        images / "test" / "good" / "000.png",
        images / "test" / "good" / "000.png",
        f"--out={out}",
    )
    rows = read_csv(out)
    assert [row["path"] for row in rows] == [
        str(images / "test" / name)
        for name in ("hole/000.png", "hole/001.png", "good/000.png")
    ]
    for row in rows:
        expected = scores[row["path"]]
        assert float(row["anomaly_score"]) == pytest.approx(
            float(expected["anomaly_score"]), rel=1e-4, abs=1e-3
        )
        assert row["path"] in result.stdout.replace("\n", "")
    assert "of 3 anomalous" in result.stdout


@pytest.mark.parametrize(
    ("option", "value"), [("threshold", 0.5), ("sensitivity", 0.9)]
)
def test_other_thresholds(invoke, trained, images, tmp_path, option, value):
    out = tmp_path / "scores.json"
    result = invoke(
        "predict", trained, images / "test", f"--{option}={value}", "--out", out
    )
    calibration = load_detector(str(trained)).calibration
    limit = calibration.adjusted(**{option: value}).threshold
    rows = json.loads(out.read_text())
    flags = [row["is_anomalous"] for row in rows]
    assert flags == [row["anomaly_score"] >= limit for row in rows]
    assert f"from score {limit:.4g} on" in result.stdout


def test_thresholds_that_make_no_sense(invoke, trained, images):
    arguments = ["predict", trained, images]
    options = ["--threshold=1", "--sensitivity=0.5"]
    result = invoke(*arguments, *options, code=2)
    assert "threshold or a sensitivity, not both" in result.stderr
    result = invoke(*arguments, "--sensitivity=2", code=2)
    assert "--sensitivity" in result.stderr


def test_images_of_any_size_and_kind(invoke, trained, tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (30, 70, 3), dtype="uint8")
    image = tmp_path / "Größe [1].jpg"
    Image.fromarray(pixels).save(image)
    heat_maps = tmp_path / "maps"
    result = invoke("predict", trained, image, f"--heat-maps={heat_maps}")
    assert "Größe [1].jpg" in result.stdout
    (picture,) = heat_maps.iterdir()
    with Image.open(picture) as opened:
        assert opened.size == (70, 30)
        assert opened.mode == "RGB"


def test_files_that_are_seen_as_nearly_black_are_told(
    invoke, trained, tmp_path
):
    """Twelve bits in 16: the model has been trained on files with 8 bits."""
    pixels = np.random.default_rng(0).integers(0, 4096, (48, 48), "uint16")
    Image.fromarray(pixels).save(tmp_path / "dark.png")
    result = invoke("predict", trained, tmp_path / "dark.png")
    assert "dark.png has 16 bits a value" in "".join(result.output.split("\n"))


def test_heat_maps_show_where_the_defect_is(invoke, trained, images, tmp_path):
    heat_maps = tmp_path / "maps"
    image = images / "test" / "hole" / "000.png"
    out = tmp_path / "s.csv"
    invoke(
        "predict", trained, image, f"--heat-maps={heat_maps}", f"--out={out}"
    )
    (picture,) = heat_maps.iterdir()
    assert str(picture) in out.read_text()
    colors = np.asarray(Image.open(picture), "float32")
    pixels = np.asarray(Image.open(image), "float32")
    changed = np.abs(colors - pixels[..., np.newaxis]).sum(-1)
    model = load_detector(str(trained))
    (anomaly_map,) = model.predict(
        pixels[np.newaxis, ..., np.newaxis] / 255, verbose=0
    )["anomaly_map"]
    hot = anomaly_map >= model.calibration.pixel_threshold
    cold = anomaly_map <= 0
    assert hot.any()
    assert changed[hot].mean() > 50
    assert changed[cold].max() == 0


@pytest.mark.parametrize("threshold", [-1e9, 1e9])
def test_exit_code_tells_of_anomalies(
    invoke, trained, images, tmp_path, threshold
):
    path = saved(trained, tmp_path, threshold=threshold)
    image = images / "test" / "good" / "000.png"
    is_anomalous = threshold < 0
    out = tmp_path / "s.json"
    result = invoke("predict", path, image, f"--out={out}")
    assert ("1 of 1 anomalous" in result.stdout) is is_anomalous
    (row,) = json.loads(out.read_text())
    assert (row["path"], row["is_anomalous"]) == (str(image), is_anomalous)
    assert set(row) == {
        *("path", "anomaly_score", "is_anomalous", "raw_score"),
        *("error", "conflict"),
    }
    invoke("predict", path, image, "--fail-on-anomaly", code=int(is_anomalous))


def test_broken_and_missing_files(invoke, trained, images, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    good = images / "test" / "good" / "000.png"
    missing = tmp_path / "missing.png"
    out = tmp_path / "s.csv"
    arguments = ["predict", trained, broken, good, missing, f"--out={out}"]
    result = invoke(*arguments, code=2)
    assert "broken.png: broken or truncated PNG" in result.stderr
    assert "missing.png: the file does not exist" in result.stderr
    assert not out.exists()
    result = invoke(*arguments, "--on-error=skip")
    assert "Warning: 2 bad files among 3" in result.stderr
    assert len(out.read_text().splitlines()) == 2


def test_what_is_left_out_of_a_folder_is_told(
    invoke, trained, images, tmp_path
):
    folder = tmp_path / "photos"
    shutil.copytree(images / "test" / "good", folder)
    for number in range(2):
        (folder / f"{number}.heic").write_bytes(b"photo")
    result = invoke("predict", trained, folder)
    assert "left out, no images: 2 .heic" in result.stderr.replace("\n", " ")
    assert "of 4 anomalous" in result.stdout
    # As shells do that know no patterns.
    result = invoke("predict", trained, f"{folder}/00[01].png")
    assert "of 2 anomalous" in result.stdout


def test_uncalibrated_models_flag_nothing(invoke, images, tmp_path):
    path = tmp_path / "m.keras"
    AutoEncoder((48, 48, 1), filters=(4, 4, 2)).save(path)
    result = invoke(
        "predict",
        path,
        images / "test" / "hole",
        f"--heat-maps={tmp_path / 'maps'}",
        "--fail-on-anomaly",
    )
    assert "not calibrated: nothing is flagged" in result.stdout


def test_models_that_cannot_be_used_are_named(invoke, images, tmp_path):
    path = tmp_path / "m.keras"
    path.write_bytes(b"no model")
    result = invoke("predict", path, images, code=2)
    assert "m.keras cannot be loaded" in result.stderr
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)
    result = invoke("predict", path, images, code=2)
    assert "holds no anomaly detector of this package" in result.stderr
    AutoEncoder((None, None, 1), filters=(4, 4, 2)).save(path)
    result = invoke("predict", path, images, code=2)
    assert "takes images of any size" in result.stderr


# === Scores that are no numbers ===


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(
    invoke, trained, images, tmp_path, value
):
    model = load_detector(str(trained))
    # ReLUs that follow may hide it.
    kernel = next(w for w in model.weights if w.path.endswith("kernel"))
    values = kernel.numpy().copy()
    values.flat[0] = value
    kernel.assign(values)
    path = tmp_path / "damaged.keras"
    model.save(path)
    good = images / "test" / "good"
    for command in (
        ("predict", path, good, "--fail-on-anomaly"),
        ("export", path, "--to=onnx", "--images", good),
        ("score", good / "*.png", "--model", path, f"--out={tmp_path / 's'}"),
        ("package", path, "--to", tmp_path / "p", "--images", good),
        ("serve", path),
    ):
        result = invoke(*command, code=2)
        assert "weights that are NaN or infinite" in result.stderr, command
        assert kernel.path in result.stderr, command


def test_images_without_a_finite_score_have_an_error(
    invoke, trained, images, tmp_path
):
    # What is too large for a float is infinite.
    path = saved(trained, tmp_path, score_std=1e-44)
    out, maps = tmp_path / "s.json", tmp_path / "maps"
    for options in ([], ["--fail-on-anomaly"]):
        result = invoke(
            *("predict", path, images / "test" / "good", f"--out={out}"),
            *(f"--heat-maps={maps}", *options),
            code=2,
        )
        assert "error: the model gives" in result.stdout
        assert "4 of 4 images have no result" in result.stderr
    for row in json.loads(out.read_text()):
        assert row["error"].startswith("the model gives")
        names = ("anomaly_score", "is_anomalous", "raw_score", "heat_map")
        assert [row[name] for name in names] == [None] * 4
    assert not maps.exists()


def test_an_evaluation_names_the_image_without_a_finite_score(
    invoke, copy, images, tmp_path
):
    path = saved(copy, tmp_path, score_std=1e-44)
    shutil.copy(path, copy / "model.keras")
    result = invoke("evaluate", copy, code=2)
    assert "cannot be measured: the model gives" in result.stderr
    assert str(images / "test") in result.stderr
    assert not (copy / "metrics.json").exists()


def test_conflicts_are_said_and_the_decision_is_followed(
    invoke, trained, images, tmp_path
):
    image = images / "test" / "hole" / "000.png"
    limits = {"threshold": 1e9, "pixel_threshold": 1.0, "peak_threshold": -1e9}
    for decision, code in (("score", 0), ("pixels", 1), ("either", 1)):
        path = saved(trained, tmp_path, **limits, decision=decision)
        result = invoke("predict", path, image, "--fail-on-anomaly", code=code)
        verdict = ("normal", "anomalous")[code]
        said = f"{verdict}, but pixels above their threshold, image score below"
        assert said in result.stdout
