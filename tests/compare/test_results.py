import dataclasses
import json

import pytest

from keras_sspcab.compare.grid import Cell, Grid
from keras_sspcab.compare.results import (
    CellState,
    Result,
    read_results,
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
    assert state_of(run) is CellState.NEW
    run.start(CONFIG)
    assert state_of(run) is CellState.BEGUN
    finish(run)
    assert state_of(run) is CellState.TRAINED
    evaluate(run, image_auroc=0.5)
    assert state_of(run) is CellState.DONE
    with open(run.file("metrics.json"), "w") as file:
        file.write('{"image_auroc": 0.')
    assert state_of(run) is CellState.TRAINED


def test_results_are_those_of_finished_cells(tmp_path):
    grid = Grid(("a",), ("m",), ("off", "on"), (0, 1))
    done = Cell("a", "m", "on", 1)
    for cell in (done, Cell("a", "m", "off", 0)):
        run = RunFolder(str(tmp_path / cell.folder))
        run.start(CONFIG)
        evaluate(
            run,
            image_auroc=0.75,
            per_defect={"hole": {"image_auroc": 1.0}},
            conventions={"tracks": "masks"},
        )
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


def test_time_left_goes_by_the_host(make):
    comparison = make(
        lambda cell: {"aupro": 0.5}, models=("a", "b"), seeds=(0,)
    )
    seconds = {("a", "off"): 10.0, ("a", "on"): 20.0, ("b", "off"): 100.0}
    results = {
        cell: Result({}, {"seconds": {"training": value, "evaluation": 1.0}})
        for cell in comparison.grid
        if (value := seconds.get((cell.model, cell.block)))
    }
    some = dataclasses.replace(comparison, results=results)
    cells = [Cell("x", "a", "on", 5), Cell("x", "b", "on", 5)]
    assert some.seconds_left(cells) == pytest.approx(16 + 101)
    unknown = [Cell("x", "c", "on", 5)]
    assert some.seconds_left(unknown) == pytest.approx((11 + 21 + 101) / 3)
    assert comparison.seconds_left(cells) is None
