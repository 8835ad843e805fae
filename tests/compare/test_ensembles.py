import os

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from keras_sspcab.compare.grid import Cell, Grid
from keras_sspcab.compare.results import ensemble_metrics, read_ensembles
from keras_sspcab.runs import RunFolder, files
from keras_sspcab.runs.outputs import ImageScore, write_image_scores

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
    write_image_scores(run.file("predictions"), rows[::order])
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
