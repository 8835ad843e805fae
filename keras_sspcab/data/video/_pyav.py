"""PyAV, which decodes video files: optional, imported at the first use."""

import functools
from typing import Any

#: How to get it, for messages.
INSTALL_HINT = 'Install it with: pip install "keras-sspcab[video]"'


@functools.cache
def pyav() -> Any:
    """Returns the module `av`.

    Raises:
        ImportError: If it is not installed; the message says how to do that.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError(
            f"Video files need PyAV. {INSTALL_HINT}. Folders of frames can be "
            "read without it."
        ) from error
    return av
