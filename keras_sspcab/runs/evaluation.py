"""Scores the test data of a run and measures how good the scores are."""

import warnings
from typing import Any

from keras_sspcab.metrics import describe_shortcut
from keras_sspcab.runs import files
from keras_sspcab.runs.config import Config
from keras_sspcab.runs.folder import RunFolder
from keras_sspcab.runs.image_evaluation import evaluate_images
from keras_sspcab.runs.measures import Measured
from keras_sspcab.runs.models import load_detector
from keras_sspcab.runs.outputs import write_curves
from keras_sspcab.runs.progress import Progress
from keras_sspcab.runs.sources import ImageSource, source_of
from keras_sspcab.runs.video_evaluation import evaluate_videos


def evaluate_run(
    run: RunFolder, config: Config, progress: Progress | None = None
) -> dict[str, Any]:
    """Writes `predictions/` and `metrics.json` of a run.

    Warns of what the test data lack to be measured on.

    Args:
        run: A finished run.
        config: Its configuration; `data.path` may be another folder.
        progress: Counts frames of videos.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: If the run has no model, or its data cannot be used.
    """
    progress = progress or Progress()
    model: Any = load_detector(run.path)
    source: Any = source_of(config, run)
    samples, split, root = source.samples_to_evaluate()
    with files.replacing_folder(run.file("predictions")) as folder:
        if isinstance(source, ImageSource):
            measured = evaluate_images(model, source, samples, folder)
        else:
            measured = evaluate_videos(model, source, samples, folder, progress)
        write_curves(folder, measured.curves)
    calibration = model.calibration.to_dict()
    metrics = {**measured.metrics, "calibration": calibration}
    run.record_evaluation(metrics, split, root)
    gaps = _image_gaps if isinstance(source, ImageSource) else _video_gaps
    for text in gaps(measured, split):
        warnings.warn(text, stacklevel=2)
    return metrics


def _image_gaps(measured: Measured, split: str) -> list[str]:
    metrics, texts = measured.metrics, []
    if split != "test":
        scored = "training" if split == "train" else "held-out normal"
        texts.append(
            f"There are no test images; the {scored} images were scored"
        )
    if not metrics["num_defective_images"]:
        texts.append(
            "Metrics need defective images, as in test/DEFECT. There are only "
            "normal ones: scores were written, and the false alarms counted"
        )
    elif not metrics["num_normal_images"]:
        texts.append(
            "Image metrics need normal images as well, as in test/good. There "
            "are only defective ones"
        )
    if measured.without_truth:
        texts.append(
            f"{len(measured.without_truth)} defective images have no mask and "
            "count for no pixel metric"
        )
    if shortcut := describe_shortcut(metrics):
        texts.append(shortcut)
    return texts


def _video_gaps(measured: Measured, split: str) -> list[str]:
    if split != "test":
        return [
            "There are no test videos; the held-out normal videos were scored"
        ]
    if measured.without_truth:
        return [
            f"{len(measured.without_truth)} test videos have no ground truth "
            "and count for no metric"
        ]
    if not measured.metrics["num_abnormal_frames"]:
        return ["No test frame is abnormal: there is nothing to tell apart"]
    return []
