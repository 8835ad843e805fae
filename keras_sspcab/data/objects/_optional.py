"""OpenCV and onnxruntime: optional, imported at the first use."""

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
            "Finding and cutting out objects needs OpenCV. Install it with: "
            'pip install "keras-sspcab[video]"'
        ) from error
    return cv2


@functools.cache
def onnxruntime() -> Any:
    """Returns the module `onnxruntime`.

    Raises:
        ImportError: If it is not installed; the message says how to do that.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            "Running a detector needs onnxruntime. Install it with: "
            'pip install "keras-sspcab[export]". Or read boxes that others '
            "have detected with `BoxFiles`."
        ) from error
    return onnxruntime
