"""How long a run would take on this machine, from a few steps and samples."""

import dataclasses
import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_sspcab.runs.config import Config
from keras_sspcab.runs.models import build_model, compile_model, construct
from keras_sspcab.runs.sources import ObjectSource, Source, source_of
from keras_sspcab.runs.training import training_parts

# The first step compiles, and the next ones may still allocate.
_WARM_UP = 2
_MEASURED = 3
# Pixels in a measured step: batches of the papers need more memory than many
# machines have.
_MOST_PIXELS = 2 * 256 * 256
# Videos whose objects are cut out.
_MOST_VIDEOS = 3
# Images, or one video, that are scored.
_MOST_SCORED = 16


@dataclasses.dataclass(frozen=True)
class RunEstimate:
    """What a training and its evaluation would take.

    Attributes:
        steps: Steps of the training in all.
        seconds_per_step: As measured; of several stages, the mean.
        scoring_seconds: Fitting the scores, calibration and evaluation.
        preparation_seconds: Cutting objects out, which is done once for all
            runs that share a folder of objects.

    Example:
    >>> RunEstimate(steps=1800, seconds_per_step=2.0, scoring_seconds=900).hours
    1.25
    """

    steps: int
    seconds_per_step: float
    scoring_seconds: float = 0.0
    preparation_seconds: float = 0.0

    @property
    def hours(self) -> float:
        """Hours for all steps and for the scoring."""
        seconds = self.steps * self.seconds_per_step + self.scoring_seconds
        return seconds / 3600


def estimate_run(config: Config) -> RunEstimate:
    """Measures a few steps of a training, of each of its stages, and scoring.

    Batches of large images are smaller than in the training, and count for
    more in proportion. A few samples are scored, and the others taken to be
    like them. Of a model that looks at objects, those of a few videos are cut
    out, and taken to be as many in the others. Nothing is kept; the first
    reading of the data and the metrics are not measured.

    Raises:
        ValueError: If the data or a setting cannot be used.

    Example:
    >>> estimate_run(run.config).hours  # doctest: +SKIP
    3.4
    """
    if not any(config.data.image_size):  # that of the training images
        found = source_of(config)
        found.split()
        config = found.config
    training = config.training
    side = config.data.patch_size or config.inspection.tile
    height, width = (side, side) if side else config.data.image_size
    fitting = max(1, _MOST_PIXELS // (height * width))
    size = min(training.batch_size, fitting)
    small = config.model_copy(
        update={
            "training": training.model_copy(update={"batch_size": size}),
            # What is cut out goes with the source.
            "objects": config.objects.model_copy(update={"folder": ""}),
        }
    )
    source: Any = source_of(small)
    folder, test = source.split(), source.samples_to_evaluate()[0]
    small, share, preparation = source.config, 1.0, 0.0
    model = build_model(small)
    parts, seconds, steps, part_of = [], [], 0, folder
    if isinstance(source, ObjectSource):
        some = folder.train[:: max(1, len(folder.train) // _MOST_VIDEOS)]
        share = _amount(some) / _amount(folder.train)
        per_frame = _seconds(lambda: source.cut_out(some)) / _amount(some)
        videos = (*folder.train, *folder.validation, *test)
        preparation = per_frame * _amount(videos)
        part_of = dataclasses.replace(folder, train=some)
    if model.needs_training:
        parts = training_parts(model, source, part_of)
    for part, make, samples in parts:
        batches = math.ceil(samples / share / training.batch_size)
        steps += batches * training.epochs
        compile_model(part, small, samples)
        clock = StepClock(_WARM_UP)
        # A short set of data: some hosts look at it again after the training.
        few = make(0).repeat().take(_WARM_UP + _MEASURED)
        part.fit(few, callbacks=[clock], shuffle=False, verbose=0)
        mean = statistics.fmean(clock.seconds)
        seconds.append(mean * training.batch_size / size)
    is_video = folder.train and hasattr(folder.train[0], "num_frames")
    few = part_of.train[: 1 if is_video else _MOST_SCORED]
    fit, score = _scoring_seconds(small, source, few)
    # Hosts that calibrate by folds do so as they are fitted.
    scored = test if model.calibrates_by_folds else (*folder.validation, *test)
    scoring = fit * _amount(folder.train) + score * _amount(scored)
    keras.backend.clear_session()
    gc.collect()
    mean = sum(seconds) / max(len(seconds), 1)
    return RunEstimate(steps, mean, scoring, preparation)


def _scoring_seconds(
    config: Config, source: Source, few: Sequence[Any]
) -> tuple[float, float]:
    """Seconds to fit the scores to one image or frame, and to score one."""
    model = construct(config, config.data.image_size)

    def fit() -> None:
        model.fit_scoring(source.scoring_dataset(few))

    def score() -> None:
        for inputs, _ in model.input_batches(source.scoring_dataset(few)):
            model.predict_on_batch(inputs)

    for work in (fit, score):  # which compiles
        work()
    return _seconds(fit) / _amount(few), _seconds(score) / _amount(few)


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _amount(samples: Sequence[Any]) -> int:
    """Images, or frames of videos."""
    return sum(getattr(sample, "num_frames", 1) for sample in samples)


class StepClock(keras.callbacks.Callback):
    """Measures how long each step of a training takes.

    Args:
        skipped: Steps at the beginning of each epoch that are not measured.

    Attributes:
        seconds: Of each step that is.

    Example:
    >>> StepClock(skipped=2).seconds
    []
    """

    def __init__(self, skipped: int = 0) -> None:
        super().__init__()
        self._skipped = skipped
        self.seconds: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch >= self._skipped:
            self.seconds.append(time.perf_counter() - self._began)
