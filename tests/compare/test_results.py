import dataclasses
import json
import os

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from keras_sspcab import files
from keras_sspcab.compare.grid import Cell, Grid
from keras_sspcab.compare.results import (
    CellState,
    Result,
    ensemble_metrics,
    read_ensembles,
    read_results,
    state_of,
)
from keras_sspcab.runs import RunFolder
from keras_sspcab.runs.outputs import ImageScore, write_rows
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


def test_figures_of_other_data_or_settings_are_not_those_of_the_cell(run):
    """A cell's run may be evaluated by hand, on other data or settings."""
    run.start(CONFIG)
    finish(run)
    evaluate(run, image_auroc=0.5)
    own = run.config.evaluation.model_dump(mode="json")
    other = {**own, "masks": "whole"}
    for root, settings, state in (
        ("/screws", own, CellState.DONE),
        ("/others", own, CellState.TRAINED),
        ("/screws", other, CellState.TRAINED),
    ):
        run.update_record(
            data={"root": "/screws"},
            evaluated={"root": root, "settings": settings},
        )
        assert state_of(run) is state


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


# === Ensembles ===

LABELS = [0, 0, 0, 1, 1, 1]
SCORES = np.asarray(
    [[0.1, 0.9, 0.2, 0.8, 0.7, 0.95], [0.3, 0.1, 0.6, 0.9, 0.5, 0.2]]
)


def write_run(path, scores, labels=LABELS, root="/data", order=1):
    """Writes what an evaluation leaves that an ensemble needs."""
    run = RunFolder(str(path))
    os.makedirs(run.file("predictions"))
    rows = [
        ImageScore(f"{root}/test/{i}.png", label, "", score, False)
        for i, (label, score) in enumerate(zip(labels, scores, strict=True))
    ]
    write_rows(run.file("predictions"), ImageScore, rows[::order])
    files.write_text(run.file("config.toml"), "")
    files.write_json(run.file("metrics.json"), {})
    run.update_record(evaluated={"root": root})
    return run


def test_scores_are_averaged_image_by_image(tmp_path):
    # Wherever the data lay, and in whatever order.
    runs = [
        write_run(tmp_path / "0", SCORES[0]),
        write_run(tmp_path / "1", SCORES[1], root="/moved/data", order=-1),
    ]
    metrics = ensemble_metrics(runs)
    expected = roc_auc_score(LABELS, SCORES.mean(axis=0))
    assert metrics["image_auroc"] == pytest.approx(expected)
    alone = [roc_auc_score(LABELS, scores) for scores in SCORES]
    assert expected not in (*alone, np.mean(alone))
    assert metrics.keys() >= {"image_ap", "image_f1"}


def test_other_images_are_refused(tmp_path):
    runs = [
        write_run(tmp_path / "0", SCORES[0]),
        write_run(tmp_path / "1", SCORES[1][:5], LABELS[:5]),
    ]
    with pytest.raises(ValueError, match="scores of the same images"):
        ensemble_metrics(runs)
    runs[1] = write_run(tmp_path / "2", SCORES[1], LABELS[::-1])
    with pytest.raises(ValueError, match="scores of the same images"):
        ensemble_metrics(runs)


def test_ensembles_need_all_seeds(tmp_path):
    grid = Grid(("a",), ("m",), ("off", "on"), (3, 5))
    for i, cell in enumerate(grid):
        write_run(tmp_path / cell.folder, SCORES[i % 2])
    finished = [cell for cell in grid if cell != Cell("a", "m", "on", 5)]
    found = read_ensembles(str(tmp_path), grid, finished)
    assert list(found) == [Cell("a", "m", "off", 0)]
    assert len(read_ensembles(str(tmp_path), grid, list(grid))) == 2
