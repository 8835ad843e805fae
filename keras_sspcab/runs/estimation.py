"""How long a training would take on this machine, from a few of its steps."""

import dataclasses
import gc
import math
import statistics
import time
from typing import Any

import keras

from keras_sspcab.hosts import ObjectModel
from keras_sspcab.runs.config import Config
from keras_sspcab.runs.models import build_model, compile_model
from keras_sspcab.runs.sources import source_of
from keras_sspcab.runs.training import training_parts

# The first step compiles, and the next ones may still allocate.
_WARM_UP = 2
# Pixels in a measured step: batches of the papers need more memory than many
# machines have.
_MOST_PIXELS = 2 * 256 * 256
# Videos whose objects are cut out.
_MOST_VIDEOS = 3


@dataclasses.dataclass(frozen=True)
class TrainingEstimate:
    """What a training would take.

    Attributes:
        steps: Steps in all.
        seconds_per_step: As measured; of several stages, the mean.

    Example:
    >>> TrainingEstimate(steps=1800, seconds_per_step=2.0).hours
    1.0
    """

    steps: int
    seconds_per_step: float

    @property
    def hours(self) -> float:
        """Hours for all steps."""
        return self.steps * self.seconds_per_step / 3600


def estimate_training(config: Config, num_steps: int = 3) -> TrainingEstimate:
    """Measures a few steps of a training, of each of its stages.

    Batches of large images are smaller than in the training, and count for
    more in proportion. Of a model that looks at objects, those of a few videos
    are cut out, and taken to be as many in the others. Nothing is kept;
    reading, calibration and evaluation are not measured.

    Args:
        config: The configuration of a run.
        num_steps: Steps to measure, after two that are not.

    Raises:
        ValueError: If the data or a setting cannot be used.

    Example:
    >>> estimate_training(run.config).hours  # doctest: +SKIP
    3.4
    """
    training = config.training
    side = config.data.patch_size or config.inspection.tile
    height, width = (side, side) if side else config.data.image_size
    fitting = max(1, _MOST_PIXELS // (height * width))
    size = min(training.batch_size, fitting)
    small = config.model_copy(
        update={"training": training.model_copy(update={"batch_size": size})}
    )
    source = source_of(small)
    folder = source.split()
    small, share = source.config, 1.0
    model = build_model(small)
    if isinstance(model, ObjectModel):
        some = folder.train[:: max(1, len(folder.train) // _MOST_VIDEOS)]
        counts, all_counts = (
            sum(video.num_frames for video in videos)
            for videos in (some, folder.train)
        )
        share = counts / all_counts
        folder = dataclasses.replace(folder, train=some)
    parts, seconds, steps = [], [], 0
    if model.needs_training:
        parts = training_parts(model, source, folder)
    for part, make, samples in parts:
        batches = math.ceil(samples / share / training.batch_size)
        steps += batches * training.epochs
        compile_model(part, small, samples)
        clock = StepClock(_WARM_UP)
        # A short set of data: some hosts look at it again after the training.
        few = make(0).repeat().take(_WARM_UP + num_steps)
        part.fit(few, callbacks=[clock], shuffle=False, verbose=0)
        mean = statistics.fmean(clock.seconds)
        seconds.append(mean * training.batch_size / size)
    keras.backend.clear_session()
    gc.collect()
    return TrainingEstimate(steps, sum(seconds) / max(len(seconds), 1))


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
