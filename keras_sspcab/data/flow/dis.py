"""Dense inverse search, as OpenCV has it: good flow on the CPU."""

import threading
from typing import Any

import numpy as np

from keras_sspcab.checks import standardize_choice
from keras_sspcab.data.flow._opencv import opencv
from keras_sspcab.data.flow.optical_flow import OpticalFlow

PRESETS = ("ultrafast", "fast", "medium")

# OpenCV crashes on some that are lower and wide.
_MINIMUM = 32


class DISFlow(OpticalFlow):
    """Optical flow by dense inverse search.

    Needs no training and no weights, and takes a few milliseconds a frame. It
    needs OpenCV: `pip install "keras-sspcab[video]"`.

    References:
    - Kroeger, Timofte, Dai and Van Gool, "Fast Optical Flow using Dense
      Inverse Search", ECCV 2016

    Args:
        preset: `"ultrafast"`, `"fast"` or `"medium"` (the default), the most
            accurate one.
    """

    def __init__(self, preset: str = "medium") -> None:
        self.preset = standardize_choice(preset, PRESETS, "preset")
        # OpenCV's object keeps buffers and works for one thread at a time.
        self._local = threading.local()

    def __repr__(self) -> str:
        return f"DISFlow(preset={self.preset!r})"

    def __reduce__(self) -> Any:
        return type(self), (self.preset,)

    @property
    def settings(self) -> dict[str, Any]:
        """The preset and OpenCV's version."""
        return {
            "name": "DIS",
            "preset": self.preset,
            "opencv": opencv().__version__,
        }

    def estimate(self, previous: np.ndarray, current: np.ndarray) -> np.ndarray:
        if min(previous.shape) < _MINIMUM:
            raise ValueError(
                f"DIS needs frames of at least {_MINIMUM}x{_MINIMUM} pixels. "
                f"Received: {previous.shape[0]}x{previous.shape[1]}"
            )
        if not hasattr(self._local, "dis"):
            cv2 = opencv()
            preset = getattr(
                cv2, f"DISOPTICAL_FLOW_PRESET_{self.preset.upper()}"
            )
            self._local.dis = cv2.DISOpticalFlow_create(preset)
        return self._local.dis.calc(previous, current, None)
