"""Models that are simple enough to know what they must say."""

import contextlib
import dataclasses
import os
import signal

import numpy as np

from keras_sspcab.scoring import DriftReference

SIZE = (8, 8)
CHECKSUM = "c" * 64


@dataclasses.dataclass
class MeanScorer:
    """The score is the mean, the map the image."""

    checksum: str = CHECKSUM
    image_size: tuple = SIZE
    channels: int = 1

    def __call__(self, images):
        assert images.dtype == np.float32
        assert images.shape[1:] == (*SIZE, 1)
        means = images.mean((1, 2, 3))
        return {
            "anomaly_score": means,
            "is_anomalous": means >= 0.5,
            "raw_score": 2 * means,
            "anomaly_map": images[..., 0],
        }


@dataclasses.dataclass
class DyingScorer(MeanScorer):
    """Dies a few times, as processes do that run out of memory."""

    marker: str = ""
    times: int = 1

    def __call__(self, images):
        for number in range(self.times):
            with contextlib.suppress(FileExistsError):
                open(self.marker.format(number), "x").close()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(images)


@dataclasses.dataclass
class KnowingScorer(MeanScorer):
    """Knows what normal images are like."""

    reference: DriftReference | None = None


class BuggyScorer(MeanScorer):
    """Fails as nobody has foreseen."""

    def __call__(self, images):
        raise RuntimeError("the model has a bug")
