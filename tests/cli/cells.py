"""Cells of comparisons that cost little."""

import csv
import os

import keras

from keras_sspcab import files
from keras_sspcab.compare import cell as cells
from keras_sspcab.hosts import AnomalyModel
from keras_sspcab.layers import SSPCABLayer
from keras_sspcab.runs import outputs
from keras_sspcab.runs.folder import now
from keras_sspcab.runs.sources import source_of
from keras_sspcab.scoring import MapPooling, SquaredError


def finish(run, config, *_):
    """Leaves what a cell would that was trained and evaluated."""
    if not run.exists:
        run.start(config)
    with open(run.file("model.keras"), "w"):
        pass
    source = source_of(config)
    folder = source.split()
    run.update_record(
        state="finished",
        finished=now(),
        data={
            f"training_{source.noun}": source.fingerprint(folder),
            "test": len(folder.test),
        },
        seconds={"training": 60.0, "evaluation": 2.0},
        hardware="CPU, 2 cores",
        evaluated={"root": config.data.path},
    )
    is_on = config.model.options.get("sspcab", "its place") is not None
    measure = _measure_videos if source.noun == "videos" else _measure_images
    metrics = measure(run, is_on, config.training.seed)
    files.write_json(run.file("metrics.json"), metrics)


def _measure_images(run, is_on, seed):
    rows = [
        outputs.ImageScore(f"{i}.png", i % 2, "", float(i * (seed + 1)), False)
        for i in range(4)
    ]
    os.makedirs(run.file("predictions"), exist_ok=True)
    outputs.write_rows(run.file("predictions"), outputs.ImageScore, rows)
    return {
        "num_test_images": 4,
        "image_auroc": 0.75 + 0.05 * is_on,
        "pixel_ap": 0.5 + 0.01 * seed,
        "aupro": 0.25,
    }


def _measure_videos(run, is_on, seed):
    return {
        "kind": "video",
        "num_test_videos": 1,
        "micro_auc": 0.75 + 0.05 * is_on,
        "macro_auc": 0.5 + 0.01 * seed,
        "rbdc": 0.25,
        "streaming_micro_auc": 0.125,
        "per_video": {"01": {"auc": 0.75}},
        "conventions": {"frames_dropped": 4, "tracks": "masks"},
    }


def run_here(run, config, *_):
    """Runs a cell in this process: to start one takes longer."""
    try:
        cells.run_cell(run, config)
    except Exception as error:
        raise cells.CellError(f"{type(error).__name__}: {error}") from error


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@keras.saving.register_keras_serializable(package="tests")
class Stub(AnomalyModel):
    """A host that takes little time: two layers, and one place."""

    def __init__(
        self,
        input_shape=(64, 64, 1),
        sspcab="middle",
        calibration=None,
        name="stub",
    ):
        if sspcab not in (None, "middle"):
            raise ValueError(f"There is no such place. Received: {sspcab}")
        image = keras.Input(input_shape, name="image")
        x = keras.layers.Conv2D(8, 3, padding="same")(image)
        if sspcab:
            x = SSPCABLayer()(x)
        x = keras.layers.Conv2D(1, 3, padding="same", name="copy")(x)
        raw_map = SquaredError()(image, x)
        raw_score = MapPooling("max")(raw_map)
        outputs = self.detector_outputs(
            raw_score, raw_map, calibration, reconstruction=x
        )
        super().__init__(inputs=image, outputs=outputs, name=name)
        self.arguments = {"input_shape": tuple(input_shape), "sspcab": sspcab}

    def default_losses(self):
        return {"reconstruction": "mean_squared_error"}

    def training_targets(self, x, y):
        return {"reconstruction": x if y is None else y}
