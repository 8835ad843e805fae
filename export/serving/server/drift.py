"""Watches whether what is asked of a model still looks like normal images."""

import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_sspcab.data import decode_and_resize
from keras_sspcab.data.image_files import to_decodable
from keras_sspcab.export.serving.server.images import ENCODED_INPUT
from keras_sspcab.export.serving.server.signature import Arrays
from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.scoring import (
    DriftMonitor,
    DriftReference,
    input_statistics,
)

# Share of the time of a thread that watching may take: of many requests a part
# is looked at, of few all.
_SHARE = 0.02
# Files of a request that are decoded once more.
_MAX_FILES = 8

_log = logging.getLogger(__name__)


class DriftWatch:
    """Follows the images and scores of one version.

    Images are seen as the model gets them; files are decoded for it again.

    Args:
        report: What the export notes about the model.
        reference: What its normal images were like, if that is known.

    Attributes:
        monitor: None where the model does not know what normal images are like.
    """

    def __init__(
        self, report: Mapping[str, Any], reference: DriftReference | None
    ) -> None:
        self.monitor: DriftMonitor | None = None
        # Of what others have exported, less is known.
        with contextlib.suppress(
            AttributeError, KeyError, TypeError, ValueError
        ):
            ((self._input, image),) = report["inputs"].items()
            self._channels = image["shape"][-1]
            self._size = report["image_size"]
            self._preprocessing = Preprocessing(**report["preprocessing"])
            if reference is not None:
                self.monitor = DriftMonitor(reference)
        self._lock = threading.Lock()
        self._next = 0.0

    @property
    def is_due(self) -> bool:
        """Whether there is time to look at a request."""
        return (
            self.monitor is not None
            and time.monotonic() >= self._next
            and not self._lock.locked()
        )

    def observe(self, inputs: Arrays, outputs: Arrays) -> None:
        """Looks at a request and its answer, unless it is busy."""
        if not self.is_due or not self._lock.acquire(blocking=False):
            return
        start = time.monotonic()
        try:
            self._look(inputs, outputs)
        except Exception:  # nothing that is watched may harm what is answered
            _log.exception("Drift is watched no longer")
            self.monitor = None
        finally:
            took = time.monotonic() - start
            self._next = start + took / _SHARE
            self._lock.release()

    def _look(self, inputs: Arrays, outputs: Arrays) -> None:
        if self.monitor is None:
            return
        if ENCODED_INPUT in inputs:
            if self._size is None:
                return
            images = np.stack(
                [
                    decode_and_resize(
                        to_decodable(file),
                        tuple(self._size),
                        self._channels,
                        self._preprocessing,
                    )
                    for file in inputs[ENCODED_INPUT].ravel()[:_MAX_FILES]
                ]
            )
        else:
            images = inputs[self._input]
        statistics = input_statistics(images)
        if "anomaly_score" in outputs:
            scores = outputs["anomaly_score"].ravel()
            statistics["score"] = scores[: len(images)]
        self.monitor.update(statistics, time.time())

    def describe(self) -> dict[str, Any] | None:
        """Returns what there is to tell, as plain values; None if unknown."""
        monitor = self.monitor
        if monitor is None:
            return None
        drifts = [drift.to_dict() for drift in monitor.drifts]
        return {"num_images": monitor.num_images, "drifts": drifts}
