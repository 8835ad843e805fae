"""OpenCV, which estimates optical flow: optional, imported at first use."""

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
        "Optical flow needs OpenCV. Install it with: "
        'pip install "keras-sspcab[video]". Or read flows that others have '
        "computed with `FlowFiles`.",
    )
