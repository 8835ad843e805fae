"""Scores the test data of a run and measures how good the scores are."""

import warnings
from typing import Any

from keras_sspcab.runs import files
from keras_sspcab.runs.config import Config
from keras_sspcab.runs.folder import RunFolder, now
from keras_sspcab.runs.image_evaluation import evaluate_images
from keras_sspcab.runs.models import load_detector
from keras_sspcab.runs.outputs import write_curves
from keras_sspcab.runs.progress import Progress
from keras_sspcab.runs.sources import ImageSource, source_of
from keras_sspcab.runs.video_evaluation import evaluate_videos


def evaluate_run(
    run: RunFolder, config: Config, progress: Progress | None = None
) -> dict[str, Any]:
    """Writes `predictions/` and `metrics.json` of a run; returns the latter.

    Warns of what the test data lack to be measured on. `data.path` of the
    configuration may be another folder than that of the training.
    """
    model: Any = load_detector(run.path)
    source: Any = source_of(config, run)
    samples, split, root = source.samples_to_evaluate()
    with files.replacing_folder(run.file("predictions")) as folder:
        if isinstance(source, ImageSource):
            measured = evaluate_images(model, source, samples, split, folder)
        else:
            measured = evaluate_videos(
                model, source, samples, split, folder, progress or Progress()
            )
        write_curves(folder, measured.curves)
    calibration = model.calibration.to_dict()
    metrics = {**measured.metrics, "calibration": calibration}
    files.write_json(run.file("metrics.json"), metrics)
    run.update_record(evaluated={"split": split, "root": root, "time": now()})
    for text in measured.gaps:
        warnings.warn(text, stacklevel=2)
    return metrics
