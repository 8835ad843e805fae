"""Folders that commands work on: one at a time, killed, on a full disk."""

import os
import shutil

import numpy as np
import pytest

from keras_sspcab.locks import folder_lock
from keras_sspcab.runs import load_detector
from tests.cli.conftest import TRAINING
from tests.scripts import run_script


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def results(run):
    files = contents(run)
    names = [n for n in files if n.startswith(("predictions/", "metrics"))]
    return {name: files[name] for name in names}


# === One at a time ===


def test_what_is_in_use_is_left_alone(invoke, evaluated, images, tmp_path):
    run, scores = tmp_path / "run", tmp_path / "scores"
    shutil.copytree(evaluated, run)
    before = contents(run)
    for folder, arguments in (
        (run, ["train", f"--run={run}", "--resume", "--epochs=3"]),
        (run, ["evaluate", run]),
        (run, ["report", run]),
        (run / "export" / "tflite", ["export", run, "--to=tflite"]),
        (scores, ["score", images, f"--model={run}", f"--out={scores}"]),
    ):
        with folder_lock(folder):
            result = invoke(*arguments, code=2)
        assert f"{folder} is in use by process {os.getpid()}" in result.stderr
    assert contents(run) == before
    assert not scores.exists()
    # Reading is free.
    with folder_lock(run):
        invoke("predict", run, images / "test" / "good")


# === Killed ===

# Kills itself with the number that all processes in containers have, once for
# each place and run.
EVALUATE = """
import os, signal, sys

from keras_sspcab.runs import Run, RunFolder, evaluation, image_evaluation

own = os.getpid
os.getpid = lambda: 1

def kill(*_, **__):
    os.kill(own(), signal.SIGKILL)

def kill_at(name, function, end):
    def wrapper(source, target):
        if target.endswith(end):
            kill()
        function(source, target)
    setattr(os, name, wrapper)

for place, path in zip(sys.argv[1::2], sys.argv[2::2]):
    if os.fork() == 0:
        if place == "maps":
            write, written = image_evaluation.write_map, []
            def write_some(path, values):
                written.append(path)
                kill() if len(written) == 3 else write(path, values)
            image_evaluation.write_map = write_some
        elif place == "curves":
            evaluation.write_curves = kill
        elif place == "record":
            RunFolder.update_record = kill
        elif place == "predictions":
            kill_at("rename", os.rename, "predictions")
        elif place == "metrics":
            kill_at("replace", os.replace, "metrics.json")
        Run(path).evaluate()
        os._exit(0)
    assert os.WTERMSIG(os.wait()[1]) == signal.SIGKILL, place
"""


@pytest.mark.slow
def test_killed_evaluations_leave_nothing_that_is_mixed(
    invoke, evaluated, tmp_path
):
    # Whether the evaluation before is still there.
    places = {
        "maps": True,
        "curves": True,
        "record": False,
        "predictions": False,
        "metrics": False,
    }
    runs = {place: tmp_path / place for place in places}
    for run in runs.values():
        shutil.copytree(evaluated, run)
    arguments = [str(part) for pair in runs.items() for part in pair]
    run_script(EVALUATE, *arguments)
    expected = results(evaluated)
    for place, run in runs.items():
        assert [p for p in run.iterdir() if p.name.startswith(".")], place
        if places[place]:
            assert results(run) == expected
            invoke("report", run)
        else:
            result = invoke("report", run, code=2)
            assert "has no metrics.json yet" in result.stderr
        for _ in range(2):
            invoke("evaluate", run)
            assert results(run) == expected
        assert not list(run.rglob(".*")), place


# === A full disk ===


def test_full_disks_lose_nothing(
    invoke, images, trained, evaluated, tmp_path, small_disk
):
    run = tmp_path / "run"
    with small_disk(6000):
        result = invoke(
            "train", f"--data={images}", f"--run={run}", *TRAINING, code=2
        )
    path = run / "checkpoint.npz"
    assert f"no space to write {path}" in " ".join(result.stderr.split())
    invoke("train", f"--run={run}", "--resume")
    for one, other in zip(
        load_detector(str(run)).get_weights(),
        load_detector(str(trained)).get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)

    shutil.copytree(evaluated, tmp_path / "evaluated")
    run, before = tmp_path / "evaluated", contents(evaluated)
    with small_disk(4000):
        result = invoke("evaluate", run, code=2)
    assert f"no space to write {run / 'predictions'}" in result.stderr
    assert contents(run) == before
    invoke("report", run)

    out = tmp_path / "scores"
    arguments = ["score", images, f"--model={run}", f"--out={out}", "--maps"]
    with small_disk(4000):
        result = invoke(*arguments, "--shard-size=5", code=2)
    assert "no space to write" in result.stderr
    assert str(out) in result.stderr
    invoke(*arguments, "--shard-size=5")
    assert not list(out.rglob(".*"))
