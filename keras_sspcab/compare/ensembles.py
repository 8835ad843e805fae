"""Ensembles: the mean of the scores that several seeds give an image."""

import dataclasses
import os
from collections.abc import Collection, Sequence

import numpy as np

from keras_sspcab.compare.grid import Cell, Grid
from keras_sspcab.compare.results import Result
from keras_sspcab.metrics import image_metrics
from keras_sspcab.runs import RunFolder
from keras_sspcab.runs.outputs import ImageScore, read_image_scores


def read_ensembles(
    root: str, grid: Grid, finished: Collection[Cell]
) -> dict[Cell, Result]:
    """Measures the ensembles that have all their seeds, as cells of seed 0."""
    results = {}
    for cell in dataclasses.replace(grid, seeds=(0,)):
        members = [dataclasses.replace(cell, seed=s) for s in grid.seeds]
        if all(member in finished for member in members):
            runs = [RunFolder(os.path.join(root, m.folder)) for m in members]
            results[cell] = Result(ensemble_metrics(runs))
    return results


def ensemble_metrics(runs: Sequence[RunFolder]) -> dict[str, float]:
    """Returns the detection metrics of an ensemble.

    As in the CutPaste paper (Li et al., CVPR 2021), anomaly scores are averaged
    over models that were trained with different seeds. Ours are calibrated, in
    standard deviations of normal images, so that none outweighs the others.
    """
    members = [_scores_by_image(run) for run in runs]
    labels = {image: row.label for image, row in members[0].items()}
    for run, rows in zip(runs, members, strict=True):
        if {image: row.label for image, row in rows.items()} != labels:
            raise ValueError(
                "An ensemble takes scores of the same images from each seed. "
                f"Received: {run.path} with other images than {runs[0].path}. "
                "Evaluate both with `keras-sspcab evaluate`"
            )
    means = [np.mean([m[image].score for m in members]) for image in labels]
    return image_metrics(list(labels.values()), means)


def _scores_by_image(run: RunFolder) -> dict[str, ImageScore]:
    """Returns scores by path below the data, which may have been moved."""
    root = run.record.get("evaluated", {}).get("root", "")
    return {
        row.path.removeprefix(root).strip("/\\"): row
        for row in read_image_scores(run)
    }
