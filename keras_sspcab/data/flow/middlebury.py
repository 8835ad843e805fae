"""The `.flo` format of the Middlebury benchmark of optical flow.

The bytes `PIEH` (202021.25 as a float), width and height as int32, and then
the flow row by row, float32, horizontal and vertical motion in turn; all
little-endian.
"""

import os

import numpy as np

from keras_sspcab.runs.files import replacing

_MAGIC = b"PIEH"


def read_flo(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a `.flo` file.

    Returns:
        float32 array `(height, width, 2)`: motion to the right and down, in
        pixels. Values above 1e9 mark unknown flow.

    Raises:
        ValueError: If the file is of another kind or cut off.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise ValueError(
            f"Cannot read the flow {os.fspath(path)!r}: {error.strerror}"
        ) from error
    if not content.startswith(_MAGIC) or len(content) < 12:
        raise ValueError(
            f"A .flo file must begin with {_MAGIC!r}, width and height. "
            f"Received: {os.fspath(path)!r}, which begins with {content[:12]!r}"
        )
    width, height = np.frombuffer(content, "<i4", 2, offset=4).tolist()
    expected = 12 + 8 * width * height
    if min(width, height) < 1 or len(content) != expected:
        raise ValueError(
            f"A .flo file of {height}x{width} pixels must have {expected} "
            f"bytes. Received: {os.fspath(path)!r} of {len(content)} bytes"
        )
    values = np.frombuffer(content, "<f4", offset=12)
    return values.reshape(height, width, 2).astype("float32")


def write_flo(path: str | os.PathLike[str], flow: np.ndarray) -> None:
    """Writes a `.flo` file; it appears complete or not at all.

    Args:
        path: The file.
        flow: Array `(height, width, 2)`: motion to the right and down, in
            pixels.

    Raises:
        ValueError: If the flow has another shape.
    """
    flow = np.asarray(flow)
    if flow.ndim != 3 or flow.shape[2] != 2 or not flow.size:
        raise ValueError(
            "A flow must be an array (height, width, 2). Received: shape "
            f"{flow.shape}"
        )
    height, width, _ = flow.shape
    with (
        replacing(os.fspath(path)) as temporary,
        open(temporary, "wb") as file,
    ):
        file.write(_MAGIC)
        file.write(np.array([width, height], "<i4").tobytes())
        file.write(flow.astype("<f4").tobytes())
