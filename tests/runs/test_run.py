"""The whole road without the command line."""

import contextlib
import csv
import json
import os
import shutil
import warnings
from pathlib import Path

import pytest
from sklearn.metrics import auc

from keras_sspcab.data import write_texture_folder
from keras_sspcab.runs import ConfigError, Run
from keras_sspcab.runs.outputs import read_curves
from tests.runs.listening import Listener

SETTINGS = {
    "data.image_size": 32,
    "data.channels": 1,
    "data.patch_size": 0,
    "data.validation_fraction": 0.25,
    "model.filters": [4, 4, 2],
    "model.smoothing": 3,
    "training.batch_size": 4,
}


@contextlib.contextmanager
def expecting(text):
    """Expects a warning; those of other packages do not count."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert any(text in str(warning.message) for warning in caught)


@pytest.fixture
def images(tmp_path) -> Path:
    root = tmp_path / "brick"
    write_texture_folder(
        root,
        image_size=32,
        num_train=8,
        num_test_good=3,
        num_test_defective=3,
        defects=("hole",),
    )
    return root


def test_paths_count_from_where_the_run_was_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"objects.boxes": "det/boxes", "objects.folder": "objects"}
    run = Run.create(data="videos", model="hf2vad", settings=settings)
    objects = run.config.objects
    assert objects.boxes == str(tmp_path / "det" / "boxes")
    assert objects.folder == str(tmp_path / "objects")
    assert (objects.flow, objects.masks) == ("dis", "")
    # The name of a folder may be such a word.
    run = Run.create(data="motion", settings={"inspection.roi": "none"})
    assert run.config.data.path == str(tmp_path / "motion")
    assert run.config.inspection.roi == str(tmp_path / "none")


def test_a_run_that_has_not_begun_may_be_continued(images, tmp_path):
    options = {"data": images, "model": "autoencoder", "epochs": 2}
    run = Run.create(tmp_path / "run", **options, settings=SETTINGS)
    with expecting("The threshold is a guess"):
        run.train(resume=True)
    assert {"versions", "seed", "command", "started"} <= set(run.record)


def test_figures_and_thresholds_are_of_the_model_that_is_there(
    images, tmp_path
):
    options = {"data": images, "model": "autoencoder", "epochs": 1}
    run = Run.create(tmp_path / "run", **options, settings=SETTINGS)
    with expecting("The threshold is a guess"):
        run.train()
    run.evaluate()
    run.calibrate(threshold=4.2)
    # The same data in another place, and what bears on no result, change
    # nothing; the threshold stays.
    moved = images.rename(tmp_path / "moved")
    changed = {"data.path": str(moved), "data.cache": "memory"}
    Run(run.path, changed).train(resume=True)
    assert run.model.calibration.threshold == 4.2
    assert os.path.exists(run.file("metrics.json"))
    assert Run(run.path).config.data.path == str(moved)
    assert run.record["data"]["root"] == str(moved)
    with pytest.raises(ValueError, match="typo"):
        Run(run.path, {"data.path": "typo"}).train(resume=True)
    assert Run(run.path).config.data.path == str(moved)
    # A training does: the figures of the model before go with it.
    more = Run(run.path, {"training.epochs": 2})
    with expecting("set by hand, or measured on other images, are"):
        more.train(resume=True)
    assert run.model.calibration.threshold != 4.2
    with pytest.raises(ValueError, match="no metrics.json yet"):
        run.report()
    run.update_record(state="training")
    with pytest.warns(UserWarning, match="has not come to its end"):
        run.evaluate()
    # Images to test with are all that it takes.
    tests = moved.rename(tmp_path / "tests")
    shutil.rmtree(tests / "train")
    run.update_record(state="finished")
    metrics = run.evaluate(tests)
    assert metrics["num_test_images"] == 6
    assert "image_auroc" in metrics
    assert "image_statistics_auroc" not in metrics


@pytest.mark.slow
def test_the_whole_road_is_silent(images, tmp_path, capfd):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "run"
    options = {"data": images, "model": "autoencoder", "epochs": 1}
    run = Run.create(path, **options, settings=SETTINGS)
    assert not os.path.exists(run.path)
    assert not run.is_finished
    with expecting("The threshold is a guess"):
        run.train()
    assert run.is_up_to_date
    assert run.can_be_trained_further
    with pytest.raises(ValueError, match="holds a finished run"):
        Run.create(path, **options)

    metrics = run.evaluate()
    assert metrics == json.loads((path / "metrics.json").read_text())
    curves = read_curves(run)
    assert set(curves) == {
        *("image_roc", "image_precision_recall"),
        *("pixel_roc", "pixel_precision_recall", "pro"),
    }
    for name in ("image", "pixel"):
        curve = curves[f"{name}_roc"]
        area = auc(curve.x, curve.y)
        assert area == pytest.approx(metrics[f"{name}_auroc"], abs=0.01)
    assert run.report().stat().st_size > 10_000
    rows = run.predict(images / "test", heat_maps=tmp_path / "maps")
    assert len(rows) == 6
    assert all(os.path.isfile(row["heat_map"]) for row in rows)
    result = run.export("onnx")
    assert Path(result.path).is_file()
    assert result.parity.passes
    assert capfd.readouterr() == ("", "")

    # More epochs, in another object for the same folder.
    listener = Listener()
    more = Run(path, {"training.epochs": 2, "calibration.quantile": 0.9})
    assert not more.is_up_to_date
    with expecting("The threshold is a guess"):
        more.train(resume=True, progress=listener)
    text = "\n".join(listener.texts)
    for expected in (
        "8 normal images",
        "predictive blocks: 1",
        "Calibrated on 2",
    ):
        assert expected in text
    with open(path / "history.csv", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    again = Run(path)
    assert again.config.training.epochs == 2
    before = (path / "model.keras").read_bytes()
    again.train(resume=True)
    assert (path / "model.keras").read_bytes() == before
    with pytest.raises(ConfigError, match=r"but for those of \[evaluation\]"):
        again.evaluate(settings={"training.seed": 1})
    with pytest.raises(ConfigError, match="autoencoder was evaluated.*not"):
        again.evaluate(as_published=True)
