import re
from importlib.metadata import version

import pytest

from keras_sspcab.cli import app
from tests.cli.program import start
from tests.scripts import run_script

COMMANDS = {c.callback.__name__: c.callback for c in app.registered_commands}
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def test_help_names_all_commands(invoke):
    text = invoke("--help").output
    for name in COMMANDS:
        assert re.search(rf"\b{name.replace('_', '-')}\b", text)
    assert invoke(code=2).output.strip() == text.strip()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help_text(name):
    function = COMMANDS[name]
    hints = function.__wrapped__.__annotations__
    assert function.__doc__
    for hint in hints.values():
        if hint is not None:
            assert hint.__metadata__[0].help


def test_version(invoke):
    assert invoke("--version").output == (
        f"keras-sspcab {version('keras-sspcab')}\n"
    )


def test_help_imports_no_backend():
    # What both `keras-sspcab` and `python -m keras_sspcab.cli` call.
    script = """
import sys
from keras_sspcab.cli.__main__ import main
for command in ([], ["train"], ["compare"]):
    sys.argv = ["keras-sspcab", *command, "--help"]
    try:
        main()
    except SystemExit:
        heavy = {"tensorflow", "keras", "numpy", "matplotlib", "sklearn"}
        print("imported:", sorted(heavy & set(sys.modules)))
"""
    output = run_script(script)
    assert output.count("Usage: keras-sspcab") == 3
    assert output.count("imported: []") == 3


def test_errors_are_one_red_line_with_code_2(tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    result = start("train", "--data", tmp_path / "missing", cwd=tmp_path)
    assert result.returncode == 2
    # TensorFlow was imported, and said nothing.
    line, hint = result.stderr.splitlines()
    assert line.startswith("Error: The image folder does not exist")
    assert "--debug" in hint
    assert not _CONTROLS.search(result.stdout + result.stderr)
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback():
    result = start("--debug", "train", "--config", "missing.toml")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "ConfigError: There is no configuration file" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "no folder of images: --data is not given"),
        (
            ["train", "--set", "training.epoch=3"],
            "Unknown key `training.epoch`",
        ),
        (
            ["train", "--data", ".", "--epochs", "0"],
            "--epochs must be an integer, at least 1. Received: 0",
        ),
        (
            ["train", "--data", ".", "--set", "data.flip=3"],
            "--set data.flip must be true or false. Received: 3",
        ),
        (
            ["train", "--data", ".", "--model", "cutpast"],
            "--model is wrong. There is no model named 'cutpast'. Did you mean",
        ),
        (["train", "--resume"], "--resume continues the run in --run"),
        (["train", "--resume", "--run", "nothing"], "no run folder 'nothing'"),
        (["evaluate", "nothing"], "no run folder 'nothing'"),
        (["predict", "nothing", "a.png"], "no run folder 'nothing'"),
        (["predict", "no.keras", "a.png"], "There is no model at 'no.keras'"),
        (["predict", "x", "a.png", "--out", "a.xml"], "end in .csv or .json"),
        (["export", "nothing", "--to", "onnx"], "no run folder 'nothing'"),
        (
            ["export", "nothing", "--to", "onxx"],
            "Received: onxx. Did you mean 'onnx'?",
        ),
        (
            ["export", "x", "--to", "onnx", "--precision", "int8"],
            "'int8' is for tflite and openvino only",
        ),
        (["report", "nothing"], "no run folder 'nothing'"),
    ],
)
def test_errors_say_what_to_do(
    invoke, arguments, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments, code=2)
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_unknown_options_and_commands_have_code_2(invoke):
    assert "No such option" in invoke("train", "--epoch", code=2).output
    assert "No such command" in invoke("fit", code=2).output
