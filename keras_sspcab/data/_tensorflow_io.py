"""The optional companion of TensorFlow: more formats, more file systems."""

import functools
import warnings
from typing import Any

#: How to get it, for messages.
INSTALL_HINT = (
    'Install it with: pip install "keras-sspcab[io]" (it works with '
    "TensorFlow 2.16 only)."
)


@functools.cache
def tensorflow_io() -> Any:
    """Returns the module `tensorflow_io`, or None where it does not work.

    Importing it registers its file systems (s3, http, hdfs, az, ...).
    """
    try:
        with warnings.catch_warnings():
            # It warns about plugins that do not fit the TensorFlow there is.
            warnings.simplefilter("ignore")
            import tensorflow_io as tfio

            # Operations are loaded at the first use of an attribute.
            tfio.image.decode_webp  # noqa: B018
            tfio.experimental.image.decode_tiff  # noqa: B018
    except (ImportError, NotImplementedError, AttributeError, OSError):
        return None
    return tfio
