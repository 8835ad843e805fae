"""PyAV, which decodes video files: optional, imported at the first use."""

import functools
from typing import Any

from keras_sspcab.data._optional import import_optional

#: How to get it, for messages.
INSTALL_HINT = 'Install it with: pip install "keras-sspcab[video]"'


@functools.cache
def pyav() -> Any:
    """Returns the module `av`.

    Raises:
        ImportError: If it is not installed; the message says how to do that.
    """
    return import_optional(
        "av",
        f"Video files need PyAV. {INSTALL_HINT}. Folders of frames can be "
        "read without it.",
    )
