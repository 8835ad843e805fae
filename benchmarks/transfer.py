"""Compares DRAEM on simulated anomalies with DRAEM on real defects.

Run: python -m benchmarks.transfer RUN [RUN ...] [--output CSV]

RUN is a finished and evaluated run of `draem`. Its pixel AUROC on anomalies
that are simulated in held-out normal images, as in its training, stands beside
that on the real defects of the test images, all and by kind.
"""

from typing import Any

import keras
import numpy as np

from benchmarks.common import option_parser, write_rows
from keras_sspcab.hosts import AnomalyModel
from keras_sspcab.layers.predictive_block import PredictiveBlock
from keras_sspcab.metrics import pixel_metrics
from keras_sspcab.runs import Run
from keras_sspcab.runs.outputs import read_metrics
from keras_sspcab.runs.sources import source_of

# Each held-out image is used so often. One in twenty keeps no anomaly: its mask
# comes out empty.
REPEATS = 3


def simulated_auroc(run: Run, model: AnomalyModel) -> float:
    """Returns the pixel AUROC on simulated anomalies."""
    source = source_of(run.config, run, model)
    model.anomaly_probability = 1.0
    keras.utils.set_random_seed(0)
    images = source.scoring_dataset(source.held_out()).repeat(REPEATS)
    maps, masks = [], []
    for x, y in model.prepare_training_data(images):
        maps += list(np.asarray(model.predict_on_batch(x)["anomaly_map"]))
        masks += list(np.asarray(y["segmentation"]) > 0.5)
    return pixel_metrics(masks, maps)["pixel_auroc"]


def measure(run: Run) -> dict[str, Any]:
    """Returns rate, blocks and seed of a run, and its pixel AUROC by kind."""
    metrics, model = read_metrics(run), run.model
    return {
        "learning_rate": run.config.training.learning_rate,
        "blocks": sum(isinstance(x, PredictiveBlock) for x in model.layers),
        "seed": run.config.training.seed,
        "simulated": simulated_auroc(run, model),
        "real": metrics["pixel_auroc"],
        **{
            kind: values["pixel_auroc"]
            for kind, values in metrics["per_defect"].items()
        },
    }


def main() -> None:
    """Measures the runs on the command line; prints and writes a row each."""
    parser = option_parser(__doc__)
    parser.add_argument("runs", nargs="+")
    options = parser.parse_args()
    rows = []
    for path in options.runs:
        rows.append(measure(Run(path)))
        print(path, rows[-1], flush=True)
    write_rows(options.output, rows)


if __name__ == "__main__":
    main()
