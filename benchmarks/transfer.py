"""Compares DRAEM on simulated anomalies with DRAEM on real defects.

Run: python -m benchmarks.transfer RUN [RUN ...]

RUN is a finished and evaluated run of `draem`. Its pixel AUROC on anomalies
that are simulated in held-out normal images, as in its training, is printed
beside that on the real defects of the test images.
"""

import sys

import keras
import numpy as np

from keras_sspcab.metrics import pixel_metrics
from keras_sspcab.runs import Run
from keras_sspcab.runs.outputs import read_metrics
from keras_sspcab.runs.sources import source_of

# Each held-out image is used so often. One in twenty keeps no anomaly: its mask
# comes out empty.
REPEATS = 3


def simulated_auroc(run: Run) -> float:
    """Returns the pixel AUROC on simulated anomalies."""
    model = run.model
    source = source_of(run.config, run, model)
    model.arguments["anomaly_probability"] = 1.0
    keras.utils.set_random_seed(0)
    images = source.scoring_dataset(source.held_out()).repeat(REPEATS)
    maps, masks = [], []
    for x, y in model.prepare_training_data(images):
        maps += list(np.asarray(model.predict_on_batch(x)["anomaly_map"]))
        masks += list(np.asarray(y["segmentation"]) > 0.5)
    return pixel_metrics(masks, maps)["pixel_auroc"]


def main() -> None:
    """Prints a table."""
    print("| run | simulated | real |\n| --- | ---: | ---: |")
    for path in sys.argv[1:]:
        run = Run(path)
        real = read_metrics(run)["pixel_auroc"]
        print(
            f"| {path} | {100 * simulated_auroc(run):.1f} | {100 * real:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
