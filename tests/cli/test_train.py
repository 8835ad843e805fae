import json
import os
import re
import shutil
import signal
import subprocess
import time

import keras
import numpy as np
import pytest

from keras_sspcab.applications import AutoEncoder
from keras_sspcab.cli._progress import TrainingProgress
from keras_sspcab.hosts import HostGuide
from keras_sspcab.runs import RunFolder, load_detector, training
from tests.cli.cells import read_csv
from tests.cli.conftest import TRAINING
from tests.cli.program import command, start


def assert_same_model(run, other):
    ours, theirs = load_detector(str(run)), load_detector(str(other))
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert ours.calibration == theirs.calibration


def test_run_folder_is_complete(trained, images):
    assert sorted(os.listdir(trained)) == [
        "checkpoint.npz",
        "config.toml",
        "history.csv",
        "logs",
        "model.keras",
        "run.json",
    ]
    run = RunFolder(str(trained))
    assert run.is_finished
    assert run.config.data.path == str(images)
    assert run.config.data.image_size == (48, 48)
    assert run.config.model.options["filters"] == [4, 4, 2]
    data = run.record["data"]
    assert data["root"] == str(images)
    assert (data["train"], data["validation"], data["test"]) == (9, 3, 8)
    assert data["training_images"].startswith("9 images, names with hash")
    assert "3 of 12 normal images held out" in data["notes"][-1]
    rows = read_csv(trained / "history.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row["loss"]) > float(row["sspcab_loss"]) for row in rows)
    model = load_detector(str(trained))
    assert model.input_shape == (None, 48, 48, 1)
    assert model.calibration.num_images == 3
    assert not model.compiled


def test_tensorboard_can_read_the_logs(trained):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    events = accumulator.EventAccumulator(str(trained / "logs" / "train"))
    events.Reload()
    assert {"epoch_loss", "epoch_sspcab_loss"} <= set(events.Tags()["tensors"])
    steps = [event.step for event in events.Tensors("epoch_loss")]
    assert steps == [0, 1]


def test_output_reads_well_in_a_log(invoke, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(AutoEncoder, "guide", HostGuide(needs_gpu=True))
    monkeypatch.setattr(training, "_has_gpu", lambda: False)
    result = invoke("train", "--data", images, *TRAINING)
    run = os.path.join("runs", "autoencoder-brick-1")
    for text in (
        "validation: 3 of 12 normal images held out of train",
        "predictive blocks: 1",
        "epoch 1/2  loss ",
        "sspcab_loss ",
        "Calibrated on 3 normal images, held out of the training",
        f"The model is in {os.path.join(run, 'model.keras')}",
    ):
        assert text in result.stdout
    assert "The threshold is a guess. False alarms to expect" in result.stderr
    assert "interval from 3 images" in result.stderr
    assert "\x1b" not in result.output
    assert RunFolder(run).is_finished
    # What takes long is told before it begins.
    warning = "autoencoder needs a GPU to be useful, and there is none"
    assert result.output.index(warning) < result.output.index("epoch 1")


def test_terminal_shows_a_bar(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    progress = TrainingProgress()
    progress.set_params(
        {"epochs": 2, "steps": 4, "first_epoch": 0, "first_step": 1}
    )
    # The second stage of a host has a bar of its own.
    progress.on_train_begin()
    progress.on_train_begin()
    progress.on_epoch_begin(0)
    progress.on_train_batch_end(3, {"loss": 0.5, "sspcab_loss": 0.25})
    progress.on_epoch_end(0, {"loss": 0.5})
    progress.close()
    text = capsys.readouterr().out
    assert "epoch 1/2" in text
    assert "50%" in text
    assert "loss 5.000e-01  sspcab_loss 2.500e-01" in text


def test_lines_tell_the_progress_elsewhere(
    invoke, copy, images, tmp_path, monkeypatch
):
    lines = "keras_sspcab.cli._progress._Lines.SECONDS"
    commands = {
        "Training steps": ["train", f"--run={copy}", "--resume", "--epochs=3"],
        "Scoring batches of images": ["evaluate", copy],
        "Scoring": [
            *("score", images, f"--model={copy}", "--shard-size=7"),
            f"--out={tmp_path / 'scores'}",
        ],
    }
    for title, arguments in commands.items():
        monkeypatch.setattr(lines, 0.0)
        output = invoke(*arguments).stdout
        pattern = rf"(?m)^{title}: (\d+) of (\d+) \(\d+%\), [\d.,e+]+ a second"
        steps = re.findall(rf"{pattern}, about \d+ s left(.*)", output)
        done, total, results = steps[-1]
        assert done == total
        assert ("loss" in results) == ("train" in arguments)
    # Not more often than that.
    monkeypatch.setattr(lines, 30.0)
    assert "a second" not in invoke("evaluate", copy).stdout


@pytest.mark.slow
def test_whole_images_and_mixed_precision(invoke, images, tmp_path):
    before = keras.config.dtype_policy()
    run = tmp_path / "r"
    config = tmp_path / "c.toml"
    config.write_text(
        "[training]\nmixed_precision = 'mixed_bfloat16'\nepochs = 5\n"
    )
    options = [f"--data={images}", f"--config={config}", f"--run={run}"]
    options += [*TRAINING, "--epochs=1", "--patch-size=0", "--sspcab=none"]
    options += ["--set=data.flip=true", "--set=data.cache=disk"]
    assert "predictive blocks: 0" in invoke("train", *options).stdout
    assert keras.config.dtype_policy() == before
    assert RunFolder(str(run)).config.training.epochs == 1
    assert len(os.listdir(run / "cache")) == 1
    model = load_detector(str(run))
    assert model.layers[1].compute_dtype == "float32"
    assert model.calibration.is_calibrated


def test_broken_images_are_named_or_skipped(invoke, images, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(images, data)
    (data / "train" / "good" / "000.png").write_bytes(b"no image")
    (data / "train" / "good" / "003.png").write_bytes(b"")
    run = tmp_path / "r"
    arguments = ["train", f"--data={data}", f"--run={run}", *TRAINING]
    result = invoke(*arguments, code=2)
    assert "000.png: not an image" in result.stderr
    assert "003.png: the file is empty" in result.stderr
    assert not run.exists()
    result = invoke(*arguments, "--epochs=1", "--on-error=skip")
    assert "Warning: 2 bad files among 12" in result.stderr
    record = RunFolder(str(run)).record["data"]
    assert record["train"] + record["validation"] == 10


def test_arguments_of_the_model_are_checked_first(invoke, images, tmp_path):
    run = tmp_path / "r"
    arguments = ["train", f"--data={images}", f"--run={run}", "--channels=1"]
    arguments.append("--model=autoencoder")
    for option, message in {
        "--model=draemm": "no model named 'draemm'",
        "--set=model.smooth=3": "`model.smooth`",
        "--set=model.smoothing=4": "--set model.smoothing must be odd",
        "--sspcab=inside": "--sspcab must be one or several of",
        "--set=model.calibration=1": "`model.calibration`",
    }.items():
        result = invoke(*arguments, option, "--image-size=64", code=2)
        assert message in " ".join(result.stderr.split())
    assert not run.exists()


def test_divergence_is_told(invoke, images, tmp_path):
    result = invoke(
        *("train", f"--data={images}", f"--run={tmp_path / 'r'}", *TRAINING),
        *("--learning-rate=1e30", "--set=model.output_activation=linear"),
        code=2,
    )
    assert "The training has diverged" in result.stderr
    assert "at learning rate 1e+30" in result.stderr


# === Continuing ===


def test_finished_runs_are_left_alone(invoke, images, copy):
    before = (copy / "model.keras").read_bytes()
    result = invoke(
        "train", f"--data={images}", f"--run={copy}", *TRAINING, code=2
    )
    assert "holds a finished run" in result.stderr
    assert "--resume" in result.stderr
    result = invoke("train", f"--run={copy}", "--resume")
    assert "is finished, after 2 epochs. A larger --epochs" in result.stdout
    assert "has learned from" not in result.stderr
    assert (copy / "model.keras").read_bytes() == before


def test_new_data_of_a_finished_run_are_told(invoke, images, copy, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(images, data)
    config = copy / "config.toml"
    config.write_text(config.read_text().replace(str(images), str(data)))
    first = data / "train/good/000.png"
    shutil.copy(first, first.with_name("more.png"))
    result = invoke("train", f"--run={copy}", "--resume")
    assert "are not those that the run has learned from" in (
        result.stderr.replace("\n", " ")
    )


def test_new_thresholds_need_no_training(
    invoke, images, copy, trained, tmp_path
):
    # The images may have moved meanwhile.
    moved = shutil.copytree(images, tmp_path / "moved")
    options = [f"--data={moved}", "--set=calibration.pixel_quantile=0.5"]
    result = invoke("train", f"--run={copy}", "--resume", *options)
    assert "epoch" not in result.stdout
    run = RunFolder(str(copy))
    assert run.is_finished
    assert run.config.data.path == str(moved)
    new, old = load_detector(str(copy)), load_detector(str(trained))
    assert new.calibration.pixel_threshold < old.calibration.pixel_threshold
    assert new.calibration.map_std == old.calibration.map_std


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--batch-size=3", "started with training.batch_size=8. Received: 3"),
        ("--set=model.smoothing=5", "model.smoothing=3. Received: 5"),
        ("--epochs=1", "has 2 epochs behind it"),
        ("--config=c.toml", "has its configuration, in config.toml"),
    ],
)
def test_settings_cannot_change_on_the_way(invoke, copy, option, message):
    before = (copy / "config.toml").read_bytes()
    result = invoke("train", f"--run={copy}", "--resume", option, code=2)
    assert message in result.stderr
    assert (copy / "config.toml").read_bytes() == before


def test_what_the_checkpoint_was_trained_on_cannot_change(
    invoke, images, copy, tmp_path
):
    more = ["train", f"--run={copy}", "--resume", "--epochs=3"]
    data = tmp_path / "data"
    shutil.copytree(images, data)
    for name in ("000.png", "001.png", "002.png", "003.png"):
        (data / "train" / "good" / name).unlink()
    path = copy / "config.toml"
    notes = path.read_text(), (copy / "run.json").read_text()
    result = invoke(*more, f"--data={data}", code=2)
    assert "training images='9 images, names with hash" in result.stderr
    # The run is what it was, so that nobody calibrates on what it has seen.
    assert (path.read_text(), (copy / "run.json").read_text()) == notes
    # Settings that were edited by hand are noticed as well.
    text = path.read_text()
    path.write_text(text.replace("flip = false", "flip = true"))
    result = invoke(*more, code=2)
    assert "written with data.flip=False. Received: data.flip" in result.stderr
    (copy / "checkpoint.npz").write_bytes(b"half")
    result = invoke(*more, code=2)
    assert "checkpoint.npz is no checkpoint" in result.stderr


def _epochs_done(run):
    history = run / "history.csv"
    return len(history.read_text().splitlines()) - 1 if history.exists() else 0


def _stop_when_training(arguments, run, number):
    """Starts the program, signals it in an epoch, returns code and output.

    Not in the first two epochs, however slow the machine is.
    """
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    checkpoint = run / "checkpoint.npz"
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        is_new = checkpoint.exists() and checkpoint.stat().st_mtime_ns > before
        if is_new and _epochs_done(run) >= 2:
            process.send_signal(number)
            break
        time.sleep(0.01)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


@pytest.mark.slow
def test_killed_and_interrupted_runs_end_like_undisturbed_ones(
    invoke, images, tmp_path
):
    options = [
        f"--data={images}",
        *TRAINING,
        "--epochs=24",
        "--set=training.checkpoint_every_steps=1",
    ]
    whole = tmp_path / "whole"
    invoke("train", *options, f"--run={whole}")

    run = tmp_path / "run"
    first = ["train", *options, f"--run={run}"]
    code, output = _stop_when_training(first, run, signal.SIGKILL)
    assert code == -signal.SIGKILL, output
    again = ["train", f"--run={run}", "--resume"]
    code, output = _stop_when_training(again, run, signal.SIGINT)
    assert code == 128 + signal.SIGINT, output
    assert f"Continue with: keras-sspcab train --run {run} --resume" in output
    assert "Traceback" not in output
    assert not (run / "model.keras").exists()
    result = invoke(*first, code=2)
    assert "holds an interrupted run. Continue it with --resume" in (
        result.stderr
    )
    result = start(*again)
    assert result.returncode == 0, result.stderr
    assert "epoch 1/24" not in result.stdout
    assert_same_model(run, whole)
    assert (run / "history.csv").read_bytes() == (
        whole / "history.csv"
    ).read_bytes()
    assert json.loads((run / "run.json").read_text())["state"] == "finished"


def test_loggers_are_named(invoke, tmp_path, images):
    arguments = ("train", "--data", images, "--run", tmp_path / "run")
    text = invoke(*arguments, "--log", "mlfow", code=2).output
    assert "--log must be a list of tensorboard, mlflow, wandb" in text
