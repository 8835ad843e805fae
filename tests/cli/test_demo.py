import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from keras_sspcab.data import write_texture_folder
from keras_sspcab.runs import RunFolder
from tests.cli.program import command, start


@pytest.mark.slow
def test_demo_goes_all_the_way_and_goes_on_after_a_kill(tmp_path):
    arguments = ["demo", "--fast", "--run", tmp_path / "demo"]
    run = RunFolder(str(tmp_path / "demo"))
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    # The default model writes no checkpoint: nothing is trained in it.
    while not run.exists:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not run.is_finished

    result = start(*arguments)
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout
    for name in ("model.keras", "metrics.json", "report.html"):
        assert os.path.isfile(run.file(name))
        assert name in result.stdout
    exported = run.record["exported"]
    assert set(exported) == {"savedmodel", "tflite", "onnx"}
    assert all(Path(path).exists() for path in exported.values())
    model = Path(run.file("model.keras")).read_bytes()

    again = start(*arguments)
    assert again.returncode == 0, again.stderr
    assert "has been trained already" in again.stdout
    assert "The demo is complete" in again.stdout
    assert run.record["exported"] == exported
    assert Path(run.file("model.keras")).read_bytes() == model

    other = start("demo", "--run", tmp_path / "demo")
    assert other.returncode == 2
    assert "a run with other settings: data.image_size" in other.stderr


def test_demo_leaves_other_folders_alone(invoke, tmp_path):
    (tmp_path / "precious.txt").touch()
    result = invoke("demo", "--fast", "--run", tmp_path, code=2)
    assert "not empty and holds no run" in result.stderr
    assert os.listdir(tmp_path) == ["precious.txt"]
    assert not Path(f"{tmp_path}-data").exists()


def test_demo_names_its_textures(invoke, tmp_path):
    result = invoke(
        "demo", "--texture", "marble", "--run", tmp_path / "r", code=2
    )
    assert "marble" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_demo_takes_images_or_a_texture(invoke, tmp_path):
    arguments = ["demo", "--data", tmp_path, "--texture", "grass"]
    result = invoke(*arguments, code=2)
    assert "own or of a texture" in result.stderr


def test_demo_takes_no_other_texture_for_its_own(invoke, tmp_path):
    write_texture_folder(tmp_path / "r-data", "brick", 64, 1, 0, 0)
    arguments = ["demo", "--fast", "--texture", "grass"]
    result = invoke(*arguments, "--run", tmp_path / "r", code=2)
    assert "r-data holds images of brick" in result.stderr
    assert os.listdir(tmp_path) == ["r-data"]
