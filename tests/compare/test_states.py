import json

import pytest

from keras_sspcab.compare.comparison import read_results
from keras_sspcab.compare.grid import Cell, Grid
from keras_sspcab.compare.states import (
    State,
    changed_settings,
    read_conventions,
    read_metrics,
    state_of,
)
from keras_sspcab.runs import RunFolder
from keras_sspcab.runs.parsing import load_config

NAME = {"model.name": "autoencoder"}
CONFIG = load_config(None, {**NAME, "data.path": "/d"})


@pytest.fixture
def run(tmp_path):
    return RunFolder(str(tmp_path / "r"))


def finish(run):
    with open(run.file("model.keras"), "w"):
        pass
    run.update_record(state="finished")


def evaluate(run, **metrics):
    with open(run.file("metrics.json"), "w") as file:
        json.dump(metrics, file)


def test_states_follow_each_other(run):
    assert state_of(run) is State.NEW
    run.create(CONFIG)
    assert state_of(run) is State.BEGUN
    finish(run)
    assert state_of(run) is State.TRAINED
    evaluate(run, image_auroc=0.5)
    assert state_of(run) is State.DONE


def test_broken_metrics_are_measured_anew(run):
    run.create(CONFIG)
    finish(run)
    with open(run.file("metrics.json"), "w") as file:
        file.write('{"image_auroc": 0.')
    assert state_of(run) is State.TRAINED


def test_metrics_are_the_numbers(run):
    run.create(CONFIG)
    assert read_metrics(run) is None
    evaluate(
        run, image_auroc=0.5, n=3, per_defect={"hole": {"image_auroc": 1.0}}
    )
    assert read_metrics(run) == {"image_auroc": 0.5, "n": 3}


def test_conventions_are_those_of_the_file(run):
    run.create(CONFIG)
    assert read_conventions(run) == {}
    evaluate(run, image_auroc=0.5)
    assert read_conventions(run) == {}
    evaluate(run, micro_auc=0.5, conventions={"smoothing": "median 17"})
    assert read_conventions(run) == {"smoothing": "median 17"}
    evaluate(run, conventions="none")
    assert read_conventions(run) == {}


def test_changed_settings_are_named_but_for_those_without_effect(run):
    assert changed_settings(run, CONFIG) == {}
    run.create(CONFIG)
    assert changed_settings(run, CONFIG) == {}
    same = {
        **NAME,
        "data.path": "/elsewhere",
        "data.cache": "none",
        "training.checkpoint_every_seconds": 5,
    }
    assert changed_settings(run, load_config(None, same)) == {}
    other = {**same, "training.epochs": 7, "model.smoothing": 3}
    assert changed_settings(run, load_config(None, other)) == {
        "training.epochs": (CONFIG.training.epochs, 7),
        "model.smoothing": (CONFIG.model.options["smoothing"], 3),
    }


def test_results_are_those_of_finished_cells(tmp_path):
    grid = Grid(("a",), ("m",), ("off", "on"), (0, 1))
    done = Cell("a", "m", "on", 1)
    for cell in (done, Cell("a", "m", "off", 0)):
        run = RunFolder(str(tmp_path / cell.folder))
        run.create(CONFIG)
        evaluate(run, image_auroc=0.75, conventions={"tracks": "masks"})
    finish(RunFolder(str(tmp_path / done.folder)))
    results = read_results(str(tmp_path), grid)
    assert list(results) == [done]
    assert results[done].metrics == {"image_auroc": 0.75}
    assert results[done].conventions == {"tracks": "masks"}
    assert results[done].seconds() is None
    RunFolder(str(tmp_path / done.folder)).update_record(
        seconds={"training": 2.5}
    )
    assert read_results(str(tmp_path), grid)[done].seconds() == 2.5
