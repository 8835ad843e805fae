"""Comparisons with made-up results."""

import pytest

from keras_sspcab.compare.classes import DataClass
from keras_sspcab.compare.grid import Grid
from keras_sspcab.compare.kinds import KINDS
from keras_sspcab.compare.results import Comparison, Result


@pytest.fixture
def make():
    """Makes a comparison from a function from a cell to its metrics or None."""

    def make(
        metrics_of,
        classes=("screw",),
        models=("draem",),
        blocks=("off", "on"),
        seeds=(0, 1),
        shown=("pixel_auroc", "image_auroc"),
        kind="image",
        conventions_of=lambda cell: {},
        **record,
    ):
        grid = Grid(tuple(classes), tuple(models), tuple(blocks), tuple(seeds))
        found = {cell: metrics_of(cell) for cell in grid}
        return Comparison(
            grid=grid,
            kind=KINDS[kind],
            shown=KINDS[kind].choose_metrics(shown),
            classes=tuple(DataClass(name, "/x", 20, 5, 7) for name in classes),
            parameters={(m, b): 1000 for m in models for b in blocks},
            results={
                cell: Result(metrics, record, conventions_of(cell))
                for cell, metrics in found.items()
                if metrics is not None
            },
        )

    return make
