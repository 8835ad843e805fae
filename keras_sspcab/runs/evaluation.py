"""Scores the test data of a run and measures how good the scores are."""

import contextlib
import warnings
from collections.abc import Mapping
from typing import Any

from keras_sspcab import files
from keras_sspcab.hosts import get_application
from keras_sspcab.progress import Progress
from keras_sspcab.runs.config import Config, ConfigError
from keras_sspcab.runs.folder import RunFolder, now
from keras_sspcab.runs.image_evaluation import evaluate_images
from keras_sspcab.runs.models import load_detector
from keras_sspcab.runs.outputs import write_curves
from keras_sspcab.runs.parsing import arguments_of
from keras_sspcab.runs.sources import ImageSource, source_of
from keras_sspcab.runs.tracking import log_run
from keras_sspcab.runs.video_evaluation import evaluate_videos


def published_settings(
    config: Config, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the settings by which the host of a run was published.

    A ConfigError names what is `given`, or in the run, and contradicts them.
    """
    host: Any = get_application(config.model.name)
    published = host.published_evaluation
    if published is None:
        raise ConfigError(
            f"How {config.model.name} was evaluated where it was published is "
            "not known, or does not differ from what is done here. Leave out "
            "the `as_published` argument and choose settings of [evaluation]"
        )
    defaults = {k: p.default for k, p in arguments_of(host).items()}
    in_run = {**defaults, **config.model.options}
    in_run = {f"model.{key}": value for key, value in in_run.items()}
    for key, value in published.settings.items():
        if (found := {**in_run, **given}.get(key, value)) != value:
            raise ConfigError(
                f"{config.model.name} was published with {key}={value}. "
                f"Received: {key}={found}. Change that setting, or leave out "
                "the `as_published` argument"
            )
    return {
        key: value
        for key, value in published.settings.items()
        if key.startswith("evaluation.")
    }


def evaluate_run(
    run: RunFolder,
    config: Config,
    progress: Progress | None = None,
    as_published: bool = False,
) -> dict[str, Any]:
    """Writes `predictions/` and `metrics.json` of a run; returns the latter.

    Warns of what the test data lack to be measured on. `data.path` of the
    configuration may be another folder than that of the training.
    """
    if not run.is_finished:
        warnings.warn(
            f"The training of {run.path} has not come to its end: what is "
            "measured is the model from before it",
            stacklevel=3,
        )
    model: Any = load_detector(run.path)
    source: Any = source_of(config, run, model)
    source.check_evaluation()
    samples, split, root = source.samples_to_evaluate()
    progress, path = progress or Progress(), run.file("metrics.json")
    is_image = isinstance(source, ImageSource)
    evaluate = evaluate_images if is_image else evaluate_videos
    with (
        contextlib.ExitStack() as stack,
        files.replacing(path) as temporary,
        files.replacing_folder(run.file("predictions")) as folder,
    ):
        measured = evaluate(model, source, samples, split, folder, progress)
        write_curves(folder, measured.curves)
        calibration = model.calibration.summary()
        metrics = {
            **measured.metrics,
            "calibration": calibration,
            "preprocessing": model.preprocessing.to_dict(),
        }
        if as_published:
            metrics["as_published"] = model.published_evaluation.text
        files.write_json(temporary, metrics)
        # They stand for all of it: the old ones go before anything changes,
        # the new ones come when all has changed.
        stack.enter_context(files.set_aside(path))
        settings = config.evaluation.model_dump(mode="json")
        run.update_record(
            evaluated={
                "split": split,
                "root": root,
                "time": now(),
                "settings": settings,
            }
        )
    for text in measured.gaps:
        warnings.warn(text, stacklevel=2)
    log_run(run)
    return metrics
