"""Scores the test data of a run, whatever its model looks at."""

from keras_sspcab.cli._image_evaluation import Evaluation, evaluate_images
from keras_sspcab.cli._model import load_detector
from keras_sspcab.cli._video_evaluation import VideoEvaluation, evaluate_videos
from keras_sspcab.runs import Config, RunFolder


def evaluate_run(
    run: RunFolder, config: Config
) -> Evaluation | VideoEvaluation:
    """Writes `predictions/` and `metrics.json` of a run.

    Args:
        run: A finished run.
        config: Its configuration; `data.path` may be another folder.

    Returns:
        The metrics, and what they were measured on.

    Raises:
        ValueError: If the run has no model, or its data cannot be used.
    """
    model = load_detector(run.path)
    if model.kind != "image":
        return evaluate_videos(run, config, model)
    return evaluate_images(run, config, model)
