"""The way back: wrong answers are marked, and learned from."""

import json
import shutil

import numpy as np
import pytest

from keras_sspcab.data import MarkedImages, image_dataset, scan_image_folder
from keras_sspcab.runs import Run, RunFolder, load_detector
from keras_sspcab.scoring import Calibration
from tests.cli.test_feature_hosts import SMALL


@pytest.fixture(scope="module")
def marked(tmp_path_factory, images, invoke):
    """Three normal images and a defective one, marked as wrongly judged."""
    path = tmp_path_factory.mktemp("marks") / "feedback"
    good = sorted(images.glob("test/good/*.png"))[:3]
    # Cameras name files like this.
    good[2] = shutil.copy(good[2], path.parent / "2024.01.02_10.33.22.png")
    result = invoke("mark", path, *good, "--false-alarm")
    assert "holds 3 false alarms and 0 missed defects" in result.stdout
    invoke("mark", path, next(images.glob("test/hole/*.png")), "--missed")
    return path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, images, invoke):
    """A run of the default host; not to be changed."""
    run = tmp_path_factory.mktemp("fitted") / "run"
    invoke("train", f"--data={images}", f"--run={run}", *SMALL)
    return run


@pytest.fixture
def own(tmp_path, fitted):
    """A run of the default host to play with."""
    return shutil.copytree(fitted, tmp_path / "run")


def test_marks_are_taken_back_and_counted(tmp_path, images, invoke):
    first, second = sorted(images.glob("test/good/*.png"))[:2]
    path = tmp_path / "feedback"
    invoke("mark", path, first, second, "--false-alarm")
    invoke("mark", path, second, "--missed")
    invoke("mark", path, first, "--remove")
    result = invoke("mark", path)
    assert "holds 0 false alarms and 1 missed defects" in result.stdout
    result = invoke("mark", path, first, "--remove", code=2)
    assert "is not marked in" in result.stderr
    for options in ((first,), (first, "--missed", "--remove"), ("--missed",)):
        result = invoke("mark", path, *options, code=2)
        assert "one of --false-alarm, --missed and --remove" in result.stderr


@pytest.mark.slow
def test_false_alarms_raise_the_threshold(own, marked, invoke):
    before = load_detector(str(own))
    assert before.calibration.num_images == 12
    result = invoke("calibrate", own, "--feedback", marked)
    assert "Calibrated on 15 normal images" in result.stdout
    model = load_detector(str(own))
    (missed,) = scan_image_folder(str(marked)).test
    flagged = model.predict(load([missed]), verbose=0)["is_anomalous"][0]
    said = "1 is flagged now" if flagged else "0 are flagged now"
    assert f"Of 1 defective images marked as missed, {said}" in result.stdout
    after = model.calibration
    assert after.name.startswith("training+feedback@")
    # The same as all of their scores at once.
    folder = scan_image_folder(str(marked))
    before.fit_scoring(data_of(Run(own).record["data"]["root"]))
    scores, pixels, peaks, *_ = before.normal_scores(None)
    alarms = before.normal_scores(load(folder.train))
    expected = Calibration.measure(
        np.concatenate([scores, alarms[0]]),
        np.concatenate([pixels, alarms[1]]),
        after.quantile,
        after.pixel_quantile,
        after.decision,
        np.concatenate([peaks, alarms[2]]),
    )
    assert after.threshold == pytest.approx(expected.threshold, rel=1e-4)
    assert after.score_mean == pytest.approx(expected.score_mean, rel=1e-4)
    assert after.map_std == pytest.approx(expected.map_std, rel=1e-2)


def load(samples):
    return image_dataset(samples, image_size=(64, 64), batch_size=8)


def data_of(root):
    return load(scan_image_folder(root).train)


@pytest.mark.slow
def test_a_fitted_model_learns_from_them(own, marked, images, tmp_path, invoke):
    result = invoke("train", "--run", own, "--resume", "--feedback", marked)
    assert "marked as false alarms: 3 more images to train on" in result.stdout
    assert "Fitting statistics to 15 normal images" in result.stdout
    assert RunFolder(str(own)).record["data"]["train"] == 15
    # As if they had been there from the beginning.
    data = shutil.copytree(images, tmp_path / "data")
    for path in MarkedImages(marked).false_alarms:
        shutil.copy(path, data / "train" / "good" / f"x{path.name}")
    other = tmp_path / "other"
    invoke("train", f"--data={data}", f"--run={other}", *SMALL)
    one, two = (load_detector(str(run)) for run in (own, other))
    for mine, its in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-4, atol=1e-5)
    # It has them now: they are neither counted twice nor forgotten.
    result = invoke("calibrate", own, "--feedback", marked)
    assert "Calibrated on 15 normal images" in result.stdout
    result = invoke("train", "--run", own, "--resume")
    assert "is finished: there is nothing to continue" in result.stdout


def test_a_new_run_takes_them(marked, images, tmp_path, invoke):
    run = tmp_path / "run"
    options = (f"--data={images}", f"--run={run}", "--feedback", marked)
    result = invoke("train", *options, *SMALL)
    assert "Fitting statistics to 15 normal images" in result.stdout
    kept = MarkedImages(run / "marked")
    assert [len(kept.false_alarms), len(kept.missed)] == [3, 1]
    result = invoke("train", *options, *SMALL, code=2)
    assert "holds a finished run" in result.stderr


@pytest.mark.slow
def test_a_trained_model_learns_from_them_in_more_epochs(copy, marked, invoke):
    epochs = Run(copy).config.training.epochs
    options = ("--run", copy, "--resume", "--feedback", marked)
    result = invoke("train", *options, code=2)
    assert f"is finished, after {epochs} epochs. It learns from marked" in (
        result.stderr
    )
    assert not (copy / "marked").exists()
    before = load_detector(str(copy)).get_weights()
    result = invoke("train", *options, f"--epochs={epochs + 1}")
    assert "3 more images to train on" in result.stdout
    after = load_detector(str(copy)).get_weights()
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    record = RunFolder(str(copy)).record
    assert (record["state"], record["data"]["train"]) == ("finished", 12)
    # Later on without them, and the threshold is from other images.
    invoke("train", "--run", copy, "--resume", f"--epochs={epochs + 2}")
    assert RunFolder(str(copy)).record["data"]["train"] == 12
    assert load_detector(str(copy)).calibration.num_images == 3


def test_what_cannot_be_used_is_said(copy, marked, tmp_path, invoke):
    empty = tmp_path / "empty"
    for command in (("train", "--run", copy, "--resume"), ("calibrate", copy)):
        result = invoke(*command, "--feedback", empty, code=2)
        assert f"There is no marked image in {empty}" in result.stderr
    record = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**record, "state": "training"}))
    result = invoke(
        *("train", "--run", copy, "--resume", "--feedback", marked), code=2
    )
    assert "is not finished: continue it without" in result.stderr
