"""OpenCV and onnxruntime: optional, imported at the first use."""

import functools
from typing import Any

from keras_sspcab.data._optional import import_optional


@functools.cache
def opencv() -> Any:
    """Returns the module `cv2`.

    Raises:
        ImportError: If it is not installed; the message says how to do that.
    """
    return import_optional(
        "cv2",
        "Finding and cutting out objects needs OpenCV. Install it with: "
        'pip install "keras-sspcab[video]"',
    )


@functools.cache
def onnxruntime() -> Any:
    """Returns the module `onnxruntime`.

    Raises:
        ImportError: If it is not installed; the message says how to do that.
    """
    return import_optional(
        "onnxruntime",
        "Running a detector needs onnxruntime. Install it with: "
        'pip install "keras-sspcab[export]". Or read boxes that others '
        "have detected with `BoxFiles`.",
    )
