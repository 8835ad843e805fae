"""Trains a host stage by stage, each with a checkpoint of its own."""

import csv
import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_sspcab.cli._console import say
from keras_sspcab.runs import Config, RunFolder, files

if TYPE_CHECKING:
    from keras_sspcab.applications import ObjectModel


def train_stages(
    run: RunFolder,
    config: Config,
    model: "ObjectModel",
    num_objects: int,
    make_dataset: Callable[[int], Any],
    train: Callable[..., Any],
) -> None:
    """Trains all stages, or those that are left.

    Args:
        run: The run folder.
        config: Its configuration; each stage has its epochs.
        model: The host.
        num_objects: Objects in an epoch.
        make_dataset: From an epoch to its dataset of normal objects.
        train: `keras_sspcab.training.train`, with all but model, data, epochs
            and files given.
    """
    training = config.training
    steps = math.ceil(num_objects / training.batch_size) * training.epochs
    stages = model.training_stages()
    for number, stage in enumerate(stages, 1):
        stage.model.compile(
            learning_rate=training.learning_rate or None,
            steps=steps,
            jit_compile=training.jit_compile,
        )
        say(f"Stage {number} of {len(stages)}: {stage.name}")
        datasets = make_dataset
        if stage.needs_pseudo_abnormal:
            datasets = _with_pseudo_abnormal(make_dataset, config)
        train(
            stage.model,
            datasets,
            training.epochs,
            run.file(f"checkpoint-{stage.name}.npz"),
            history_csv=run.file(f"history-{stage.name}.csv"),
            log_folder=run.file(os.path.join("logs", stage.name)),
        )
        _join_histories(run, [stage.name for stage in stages[:number]])


def _with_pseudo_abnormal(
    make_dataset: Callable[[int], Any], config: Config
) -> Callable[[int], Any]:
    from keras_sspcab.data.pseudo_abnormal import (
        EmbeddedPictures,
        FolderPictures,
        add_pseudo_abnormal,
    )

    objects = config.objects
    pictures = (
        FolderPictures(objects.pictures)
        if objects.pictures
        else EmbeddedPictures()
    )

    def make(epoch: int) -> Any:
        return add_pseudo_abnormal(
            make_dataset(epoch),
            seed=config.training.seed,
            epoch=epoch,
            images=pictures,
            speed=objects.speed,
        )

    return make


def _join_histories(run: RunFolder, names: list[str]) -> None:
    """Writes `history.csv`: the epochs of all stages, one after the other."""
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(names, 1):
        path = run.file(f"history-{name}.csv")
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                rows.append({**row, "epoch": len(rows) + 1, "stage": number})
    columns = list(
        dict.fromkeys(["epoch", "stage", *(n for r in rows for n in r)])
    )
    files.write_csv(run.file("history.csv"), columns, rows)
