"""The class `Run`: the whole road without the command line."""

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
from keras_sspcab.runs import ConfigError, Progress, Run
from keras_sspcab.runs.outputs import read_curves, read_image_scores

SETTINGS = {
    "data.image_size": 32,
    "data.channels": 1,
    "data.patch_size": 0,
    "data.validation_fraction": 0.25,
    "model.filters": [4, 4, 2],
    "model.smoothing": 3,
    "training.batch_size": 4,
}


class Listener(Progress):
    def __init__(self):
        self.texts = []

    def message(self, text):
        self.texts.append(text)


@contextlib.contextmanager
def expecting(text):
    """Expects a warning; those of other packages do not count."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert any(text in str(warning.message) for warning in caught)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images") / "brick"
    write_texture_folder(
        root,
        image_size=32,
        num_train=8,
        num_test_good=3,
        num_test_defective=3,
        defects=("hole",),
    )
    return root


def create(path, images, **settings):
    return Run.create(
        path,
        data=images,
        model="autoencoder",
        epochs=1,
        settings={**SETTINGS, **settings},
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory, images) -> Run:
    """A run that was trained and evaluated; not to be changed."""
    run = create(tmp_path_factory.mktemp("done") / "run", images)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*threshold is rough.*")
        run.train()
    run.evaluate()
    return run


@pytest.fixture
def copy(done, tmp_path) -> str:
    """The folder of a finished run to play with."""
    return shutil.copytree(done.path, tmp_path / "copy")


def test_the_whole_road_is_silent(images, tmp_path, capfd):
    run = create(tmp_path / "run", images)
    assert not os.path.exists(run.path)
    assert not run.is_finished
    with expecting("only 2 normal images, held out"):
        run.train()
    assert run.is_finished
    metrics = run.evaluate()
    assert metrics == json.loads(Path(run.path, "metrics.json").read_text())
    page = run.report()
    assert page.stat().st_size > 10_000
    rows = run.predict(images / "test", heat_maps=tmp_path / "maps")
    assert len(rows) == 6
    assert all(os.path.isfile(row["heat_map"]) for row in rows)
    assert capfd.readouterr() == ("", "")


def test_predictions_are_those_of_the_evaluation(done, images):
    evaluated = {row.path: row for row in read_image_scores(done.folder)}
    rows = done.predict([images / "test" / "hole"])
    assert len(rows) == 3
    for row in rows:
        expected = evaluated[row["path"]]
        assert row["anomaly_score"] == pytest.approx(expected.score, rel=1e-3)
        assert row["is_anomalous"] == expected.is_anomalous


def test_curves_are_those_of_the_metrics(done):
    metrics = json.loads(Path(done.path, "metrics.json").read_text())
    curves = read_curves(done.folder)
    assert set(curves) == {
        *("image_roc", "image_precision_recall"),
        *("pixel_roc", "pixel_precision_recall", "pro"),
    }
    for name, key in (
        ("image_roc", "image_auroc"),
        ("pixel_roc", "pixel_auroc"),
    ):
        curve = curves[name]
        area = auc(curve.x, curve.y)
        assert area == pytest.approx(metrics[key], abs=0.01)


def test_a_run_says_what_it_does(copy):
    listener = Listener()
    run = Run.open(copy, {"calibration.quantile": 0.9})
    with expecting("rough"):
        run.train(resume=True, progress=listener)
    text = "\n".join(listener.texts)
    for expected in ("8 normal images", "SSPCAB blocks: 1", "Calibrated on 2"):
        assert expected in text


def test_a_finished_run_is_left_alone(copy):
    before = Path(copy, "model.keras").read_bytes()
    run = Run.open(copy)
    assert run.is_up_to_date
    assert run.can_be_trained_further
    run.train(resume=True)
    assert Path(copy, "model.keras").read_bytes() == before
    with pytest.raises(ValueError, match="holds a finished run"):
        run.train()


def test_a_run_is_trained_further(copy):
    run = Run.open(copy, {"training.epochs": 2})
    assert not run.is_up_to_date
    with expecting("rough"):
        run.train(resume=True)
    with open(Path(copy, "history.csv"), newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    assert Run.open(copy).config.training.epochs == 2


def test_settings_that_shape_the_training_stay(copy, images):
    with pytest.raises(ConfigError, match=r"with training\.batch_size=4"):
        Run.open(copy, {"training.batch_size": 2})
    with pytest.raises(ConfigError, match=r"but for those of \[evaluation\]"):
        Run.open(copy).evaluate(settings={"training.seed": 1})
    with pytest.raises(ValueError, match="holds a finished run"):
        create(copy, images)
    with pytest.raises(ValueError, match="no run folder"):
        Run.open(Path(copy, "nothing"))


def test_gaps_in_the_test_data_are_warned_of(copy, images):
    run = Run.open(copy)
    with expecting("no test images; the held-out"):
        metrics = run.evaluate(data=images / "train" / "good")
    assert "image_auroc" not in metrics
    assert read_curves(run.folder) == {}


def test_exports_are_compared_with_the_model(copy):
    pytest.importorskip("onnxruntime")
    result = Run.open(copy).export("onnx")
    assert Path(result.path).is_file()
    assert result.parity.passes
