import json
import os
from pathlib import Path

import numpy as np
import pytest

from keras_sspcab import files
from keras_sspcab.runs import Config, RunFolder
from keras_sspcab.runs.folder import default_run_path
from keras_sspcab.runs.parsing import load_config

AUTOENCODER = {"model.name": "autoencoder"}


# === Folder ===


def test_run_folder_is_created_and_opened(tmp_path):
    config = load_config(None, {"training.seed": 5})
    run = RunFolder(str(tmp_path / "a" / "b"))
    assert not run.exists
    assert run.record == {}
    run.start(config)
    assert run.exists
    assert not run.is_finished
    assert RunFolder(run.path).config == config
    record = run.record
    assert record["seed"] == 5
    assert record["versions"].keys() >= {"python", "keras", "keras-sspcab"}
    assert record["state"] == "training"
    run.update_record(extra=1)
    assert run.record == {**record, "extra": 1}


def test_run_folder_is_never_overwritten(tmp_path):
    run = RunFolder(str(tmp_path / "r"))
    os.mkdir(run.path)
    # A start that was killed at once.
    run.update_record(state="training")
    run.start(Config())
    Path(run.file("model.keras")).touch()
    with pytest.raises(ValueError, match="an interrupted run. Continue it wi"):
        run.start(Config())
    run.update_record(state="finished")
    assert run.is_finished
    with pytest.raises(ValueError, match="a finished run. Choose another"):
        run.check_free()
    Path(run.file("checkpoint.npz")).touch()
    with pytest.raises(ValueError, match="a finished run. Train it further"):
        run.start(Config())


def test_run_folder_leaves_other_files_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="not empty and holds no run"):
        RunFolder(str(tmp_path)).start(Config())
    with pytest.raises(ValueError, match="is a file"):
        RunFolder(str(tmp_path / "thesis.txt")).start(Config())
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_what_is_missing_is_told_with_the_command(tmp_path):
    run = RunFolder(str(tmp_path / "r"))
    with pytest.raises(ValueError, match=r"no run folder .*written by `make`"):
        run.require("x", "make")
    os.mkdir(run.path)
    with pytest.raises(ValueError, match=r"no run folder: it has no config"):
        run.require("x", "make")
    run.start(Config())
    with pytest.raises(ValueError, match=r"has no x yet. It is written by"):
        run.require("x", "make")
    assert run.require("config.toml", "make") == run.file("config.toml")


def test_broken_record_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json is broken: no valid JSON"):
        _ = RunFolder(str(tmp_path)).record


def test_default_path_is_free_and_safe(tmp_path):
    config = load_config(None, {**AUTOENCODER, "data.path": "/data/my screws!"})
    root = str(tmp_path / "runs")
    first = default_run_path(config, root)
    assert first == os.path.join(root, "autoencoder-my_screws_-1")
    RunFolder(first).start(config)
    assert default_run_path(config, root).endswith("-2")


# === Files ===


def test_files_are_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "f.json"
    files.write_json(str(path), {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(str(path), {"a": float("nan")})

    def write_half():
        with files.replacing(str(path)) as temporary:
            Path(temporary).write_text("half")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        write_half()
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["f.json"]


def test_folders_are_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder"

    def write(text, fail=False):
        with files.replacing_folder(str(path)) as temporary:
            Path(temporary, text).touch()
            if fail:
                raise RuntimeError("boom")

    write("a")
    write("b")
    with pytest.raises(RuntimeError, match="boom"):
        write("c", fail=True)
    assert os.listdir(path) == ["b"]
    assert os.listdir(tmp_path) == ["folder"]


def test_folder_comes_back_if_the_new_one_cannot_be_moved(
    tmp_path, monkeypatch
):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    rename = os.rename

    def fail_for_the_new_one(source, target):
        if source.endswith(".tmp"):
            raise OSError("disk full")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_for_the_new_one)
    with (
        pytest.raises(OSError, match="disk full"),
        files.replacing_folder(str(path)) as temporary,
    ):
        Path(temporary, "new").touch()
    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["folder"]


def _save_keras(path):
    import keras

    layers = [keras.Input((100,)), keras.layers.Dense(100)]
    keras.Sequential(layers).save(path)


def _save_parquet(path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    numbers = np.random.default_rng(0).random(10_000)
    parquet.write_table(arrow.table({"a": numbers}), path)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("a.txt", lambda path: Path(path).write_text("x" * 10_000)),
        ("a.npy", lambda path: np.save(path, np.zeros(10_000))),
        ("a.npz", lambda path: np.savez(path, a=np.zeros(10_000))),
        ("a.keras", _save_keras),
        ("a.parquet", _save_parquet),
    ],
)
def test_full_disks_are_told(tmp_path, small_disk, name, save):
    path = tmp_path / name
    path.write_text("before")
    with (
        small_disk(2000),
        pytest.raises(OSError, match=r"no space to write .*MB are free") as e,
        files.replacing(str(path)) as temporary,
    ):
        save(temporary)
    assert str(path) in str(e.value)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == [name]
    with files.replacing(str(path)) as temporary:
        save(temporary)
