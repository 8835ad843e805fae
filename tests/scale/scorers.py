"""Models that are simple enough to know what they must say."""

import dataclasses
import os
import signal
import time
from pathlib import Path

import numpy as np

SIZE = (8, 8)
CHECKSUM = "c" * 64
# Of this gray value all pixels are in an image that kills.
DEADLY = 7


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
class WaitingScorer(MeanScorer):
    """The first one of all waits, at its second shard, until it is killed."""

    pid_file: str = ""

    def __post_init__(self):
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        if self.calls == 2 and not os.path.exists(self.pid_file):
            temporary = f"{self.pid_file}.{os.getpid()}"
            Path(temporary).write_text(str(os.getpid()))
            try:
                os.link(temporary, self.pid_file)
            except FileExistsError:
                return super().__call__(images)
            time.sleep(120)
        return super().__call__(images)


class DeadlyScorer(MeanScorer):
    """Dies of an image, as processes do that run out of memory."""

    def __call__(self, images):
        flat = np.rint(images.reshape(len(images), -1) * 255)
        if (flat == DEADLY).all(1).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(images)


class BuggyScorer(MeanScorer):
    """Fails as nobody has foreseen."""

    def __call__(self, images):
        raise RuntimeError("the model has a bug")
