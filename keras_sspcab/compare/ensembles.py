"""Ensembles: the mean of the scores that several seeds give an image."""

import csv
import dataclasses
import os
from collections.abc import Collection

import numpy as np

from keras_sspcab.compare.comparison import Result
from keras_sspcab.compare.grid import Cell, Grid
from keras_sspcab.metrics import image_metrics
from keras_sspcab.runs import RunFolder


def read_ensembles(
    root: str, grid: Grid, finished: Collection[Cell]
) -> dict[Cell, Result]:
    """Measures the ensembles over all seeds of a grid.

    Args:
        root: The folder of the comparison.
        grid: The cells.
        finished: Those that have been evaluated.

    Returns:
        Results by cell; seed 0 stands for all of them. An ensemble that lacks
        a seed is left out.

    Raises:
        ValueError: If seeds were evaluated on different images.
    """
    results = {}
    for cell in Grid(grid.classes, grid.models, grid.blocks, (0,)):
        members = [dataclasses.replace(cell, seed=s) for s in grid.seeds]
        if all(member in finished for member in members):
            runs = [RunFolder(os.path.join(root, m.folder)) for m in members]
            results[cell] = Result(ensemble_metrics(runs))
    return results


def ensemble_metrics(runs: Collection[RunFolder]) -> dict[str, float]:
    """Returns the detection metrics of an ensemble.

    As in the CutPaste paper (Li et al., CVPR 2021), anomaly scores are averaged
    over models that were trained with different seeds. Ours are calibrated, in
    standard deviations of normal images, so that none outweighs the others.

    Args:
        runs: Evaluated runs.

    Raises:
        ValueError: If they were evaluated on different images.
    """
    labels: dict[str, int] = {}
    sums: dict[str, float] = {}
    for number, run in enumerate(runs):
        scores = _read_scores(run)
        if number == 0:
            labels = {image: label for image, (label, _) in scores.items()}
            sums = dict.fromkeys(labels, 0.0)
        elif {image: label for image, (label, _) in scores.items()} != labels:
            raise ValueError(
                "An ensemble takes scores of the same images from each seed. "
                f"Received: {run.path} with other images than {_first(runs)}. "
                "Evaluate both anew with `keras-sspcab evaluate`"
            )
        for image, (_, score) in scores.items():
            sums[image] += score
    images = list(labels)
    means = np.asarray([sums[image] for image in images]) / len(runs)
    return image_metrics([labels[image] for image in images], means)


def _first(runs: Collection[RunFolder]) -> str:
    return next(iter(runs)).path


def _read_scores(run: RunFolder) -> dict[str, tuple[int, float]]:
    """Returns label and score of each test image, by its path below the data.

    So that seeds agree whose data have moved in between.
    """
    path = run.require("predictions/scores.csv", "keras-sspcab evaluate")
    root = run.record.get("evaluated", {}).get("root", "")
    with open(path, encoding="utf-8", newline="") as file:
        try:
            return {
                row["path"].removeprefix(root).strip("/\\"): (
                    int(row["label"]),
                    float(row["anomaly_score"]),
                )
                for row in csv.DictReader(file)
            }
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is broken: {error!r}. Write it anew with "
                "`keras-sspcab evaluate`"
            ) from error
