"""OpenCV, which estimates optical flow: optional, imported at first use."""

import functools
from typing import Any


@functools.cache
def opencv() -> Any:
    """Returns the module `cv2`.

    Raises:
        ImportError: If it is not installed; the message says how to do that.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "Optical flow needs OpenCV. Install it with: "
            'pip install "keras-sspcab[video]". Or read flows that others have '
            "computed with `FlowFiles`."
        ) from error
    return cv2
