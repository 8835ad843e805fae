"""New thresholds for a trained model, from the command line."""

import json
import shutil
import warnings

import numpy as np
import pytest

from keras_sspcab.data import write_texture_folder
from keras_sspcab.runs import Run, load_detector
from tests.cli.test_feature_hosts import SMALL


@pytest.fixture(scope="module")
def more_normal(tmp_path_factory):
    """Normal images that no run was trained on."""
    root = tmp_path_factory.mktemp("more") / "more_normal"
    write_texture_folder(
        root, image_size=48, num_train=24, num_test_good=1, seed=5
    )
    return root / "train" / "good"


def outputs_of(run):
    model = load_detector(str(run))
    noise = np.random.default_rng(0).random((4, 48, 48, 1), "float32")
    return model.calibration, model.predict(noise, verbose=0)["raw_score"]


def test_a_threshold_by_hand_and_of_the_best_f1(evaluated, tmp_path, invoke):
    evaluated = shutil.copytree(evaluated, tmp_path / "run")
    run = Run(evaluated)
    metrics = json.loads((evaluated / "metrics.json").read_text())
    before = run.model.calibration
    result = invoke("calibrate", evaluated, "--threshold", "2.5")
    manual = run.model.calibration
    assert (manual.threshold, manual.quantile) == (2.5, None)
    assert manual.score_std == before.score_std
    assert "Of the test images it flags" in result.stdout
    result = invoke("calibrate", evaluated, "--threshold", "f1")
    best = run.model.calibration
    # As written, in fewer digits.
    expected = metrics["image_f1_threshold"]
    assert best.threshold == pytest.approx(expected, rel=1e-5)
    assert "others will do worse" in result.stdout
    invoke("calibrate", evaluated, "--restore=training")
    assert run.model.calibration == before
    result = invoke("calibrate", evaluated, "--threshold=high", code=2)
    assert "--threshold must be a score, or f1" in result.stderr
    options = ("--threshold=1", "--false-alarms=0.1")
    assert invoke("calibrate", evaluated, *options, code=2).stderr


def test_the_best_f1_needs_an_evaluation(copy, invoke):
    result = invoke("calibrate", copy, "--threshold", "f1", code=2)
    assert "Run `keras-sspcab evaluate` first" in result.stderr


def test_new_thresholds_from_more_normal_images(copy, more_normal, invoke):
    first, raw = outputs_of(copy)
    result = invoke(
        *("calibrate", copy, "--data", more_normal),
        *("--false-alarms", "0.1", "--decision=either"),
    )
    new, raw_after = outputs_of(copy)
    np.testing.assert_allclose(raw_after, raw, rtol=1e-5)
    assert new.num_images == 24
    assert new.quantile == pytest.approx(0.9)
    assert new.decision == "either"
    assert new.name.startswith("good@")
    assert new.threshold != first.threshold
    assert "Calibrated on 24 normal images" in result.stdout
    assert "False alarms to expect: " in result.stdout
    assert f"run `keras-sspcab evaluate {copy}`" in result.stdout
    assert Run(copy).config.calibration.decision == "either"
    # A threshold by hand leaves the rule of the run, to measure by it again.
    by_hand = Run(copy).calibrate(threshold=4.0)
    assert by_hand.decision == "score"
    Run(copy).calibrate(restore="training")
    assert Run(copy).config.calibration.decision == "score"
    Run(copy).calibrate(restore=new.name)
    Run(copy).calibrate(restore=by_hand.name)
    assert Run(copy).config.calibration.decision == "either"
    # Another one keeps what is not asked for.
    invoke("calibrate", copy, "--data", more_normal, "--decision=score")
    again, _ = outputs_of(copy)
    assert (again.decision, again.quantile) == ("score", new.quantile)
    kept = json.loads((copy / "calibrations.json").read_text())
    assert kept["training"]["num_images"] == 3
    assert kept["training"]["time"]
    assert kept[new.name]["false_alarm_interval"]
    invoke("calibrate", copy, "--restore=training")
    assert outputs_of(copy)[0] == first
    assert Run(copy).is_up_to_date
    result = invoke("calibrate", copy, "--restore=old", code=2)
    assert "has no calibration 'old'" in result.stderr
    assert new.name in result.stderr


def test_exports_and_evaluations_tell_which(copy, more_normal, invoke):
    invoke("calibrate", copy, "--data", more_normal)
    calibration = load_detector(str(copy)).calibration
    invoke("export", copy, "--to=savedmodel")
    (path,) = copy.glob("export/savedmodel/*/1/parity.json")
    written = json.loads(path.read_text())["calibration"]
    assert written["name"] == calibration.name
    assert written["num_images"] == 24
    metrics = Run(copy).evaluate()
    assert metrics["calibration"] == calibration.summary()


def test_images_that_thresholds_were_measured_on_are_told(
    copy, more_normal, tmp_path
):
    run = Run(copy)

    def told(data):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run.evaluate(data)
        return " ".join(str(warning.message) for warning in caught)

    # A name that stands for the run's own data.
    data = shutil.copytree(more_normal, tmp_path / "training")
    assert run.calibrate(data).name.startswith("training-data@")
    assert "measured on these very images" in told(data)
    # A part of the test images.
    whole = tmp_path / "whole"
    good = shutil.copytree(more_normal, whole / "test/good")
    for place in ("test/hole", "train/good"):
        (whole / place).mkdir(parents=True)
        shutil.copy(next(good.iterdir()), whole / place)
    run.calibrate(good)
    assert "on 24 of the normal images among these" in told(whole)
    run.calibrate(restore="training")
    assert "were measured on" not in told(whole)


def test_images_that_were_trained_on_are_refused(copy, images, invoke):
    before = (copy / "model.keras").read_bytes()
    result = invoke("calibrate", copy, "--data", images, code=2)
    assert "was trained on makes thresholds too low" in result.stderr
    result = invoke("calibrate", copy, "--false-alarms=1.5", code=2)
    assert "--false-alarms must be a number" in result.stderr
    result = invoke("calibrate", copy, "--decision=map", code=2)
    assert "decision" in result.stderr
    assert (copy / "model.keras").read_bytes() == before
    assert not (copy / "calibrations.json").exists()


@pytest.mark.slow
def test_without_images_those_of_the_training_serve(
    copy, images, tmp_path, invoke
):
    invoke("calibrate", copy, "--false-alarms=0.5")
    new, _ = outputs_of(copy)
    assert (new.num_images, new.quantile) == (3, 0.5)
    # A host that calibrates by folds finds the same scores again.
    run = tmp_path / "fitted"
    invoke("train", f"--data={images}", f"--run={run}", *SMALL)
    first = load_detector(str(run)).calibration
    invoke("calibrate", run)
    second = load_detector(str(run)).calibration
    assert second.name.startswith("training@")
    assert second.threshold == pytest.approx(first.threshold, rel=1e-4)
    assert second.peak_threshold == pytest.approx(first.peak_threshold, 1e-4)


def test_other_images_than_those_of_the_training_are_refused(
    copy, images, tmp_path, invoke
):
    moved = tmp_path / "moved"
    shutil.copytree(images, moved)
    settings = (copy / "config.toml").read_text()
    (copy / "config.toml").write_text(settings.replace(str(images), str(moved)))
    invoke("calibrate", copy, "--false-alarms=0.5")
    before = (copy / "model.keras").read_bytes()
    good = moved / "train/good"
    shutil.copy(moved / "test/good/000.png", good / "new.png")
    result = invoke("calibrate", copy, "--false-alarms=0.2", code=2)
    assert "are not those that the run was trained on" in result.stderr
    assert "as --data, or start" in result.stderr
    assert (copy / "model.keras").read_bytes() == before


def test_calibrations_of_one_second_have_names_of_their_own(copy):
    run = Run(copy)
    first, second = run.calibrate(threshold=3.0), run.calibrate(threshold=5.0)
    assert first.name != second.name
    assert run.calibrate(restore=first.name).threshold == 3.0
    assert run.calibrate(restore=second.name).threshold == 5.0
    # How it is evaluated leaves thresholds alone.
    other = Run(copy, {"evaluation.masks": "whole"})
    assert other.is_up_to_date
    other.train(resume=True)
    assert Run(copy).config.evaluation.masks == "whole"
    assert Run(copy).model.calibration.threshold == 5.0


def test_a_new_training_forgets_former_thresholds(copy, more_normal, invoke):
    invoke("calibrate", copy, "--data", more_normal)
    result = invoke("train", "--run", copy, "--resume", "--epochs=3")
    # Those of other images are told.
    words = " ".join(result.stderr.split())
    assert "They give way to those of this training" in words
    assert "(good@" in words
    assert not (copy / "calibrations.json").exists()
    assert load_detector(str(copy)).calibration.name == ""
