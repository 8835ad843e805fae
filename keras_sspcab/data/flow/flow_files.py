"""Flows that were computed elsewhere, as files."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_sspcab.data.decoding import standardize_size
from keras_sspcab.data.flow.optical_flow import (
    FlowSource,
    require_flow,
    resize_flow,
)
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.per_frame import (
    FrameFiles,
    load_array,
    require_one_a_frame,
)
from keras_sspcab.data.video.reading import count_frames

_MAGIC = b"PIEH"


class FlowFiles(FrameFiles, FlowSource):
    """Reads optical flow from `.flo` or `.npy` files.

    For a video called `NAME`, `folder` holds either `NAME.npy` of shape
    `(frames, height, width, 2)`, or a folder `NAME` with a `.flo` or `.npy`
    file `(height, width, 2)` for each frame, in the order of their names. A
    flow is that from the frame before, to the right and down, in pixels. Where
    there is one less than frames, the first frame has none: its flow is 0.

    Args:
        folder: The folder.
        scale: What values are multiplied by to give pixels. Defaults to 1.

    Raises:
        ValueError: If there is no such folder.

    Example:
    >>> FlowFiles(".", scale=0.5).settings
    {'name': 'files', 'scale': 0.5}
    """

    what = "flows"
    single = (".npy",)
    several = (".flo", ".npy")

    def __init__(self, folder: Any, scale: float = 1.0) -> None:
        super().__init__(folder)
        self.scale = float(scale)

    @property
    def settings(self) -> dict[str, Any]:
        """The scale; the files count by themselves."""
        return {"name": "files", "scale": self.scale}

    def iterate(
        self, video: Video, image_size: Any = None
    ) -> Iterator[np.ndarray]:
        """Yields the flow to each frame, resized and with its values scaled.

        A ValueError names the file that is missing or does not fit.
        """
        size = None if image_size is None else standardize_size(image_size)
        flows: Any
        flows, is_single = self._find(video)
        path = flows[0]
        if is_single:
            flows = load_array(path, "flows")
            if flows.ndim != 4:
                raise ValueError(
                    "The flows of a video must be an array (frames, height, "
                    f"width, 2). Received: shape {flows.shape} in {path!r}"
                )
        require_one_a_frame(len(flows), video, "flow", path, or_one_less=True)
        first = None
        for position, item in enumerate(flows):
            what = f"{path!r}, flow {position}" if is_single else repr(item)
            flow = item
            if not is_single:
                is_flo = item.lower().endswith(".flo")
                flow = read_flo(item) if is_flo else load_array(item, "flow")
            flow = np.asarray(flow, "float32") * np.float32(self.scale)
            flow = require_flow(flow, first, f"The flow {what}")
            if first is None:
                first = flow.shape[:2]
                if len(flows) < count_frames(video):
                    yield np.zeros((*(size or first), 2), "float32")
            yield flow if size is None else resize_flow(flow, size)


def read_flo(path: str) -> np.ndarray:
    """Reads a `.flo` file, the format of the Middlebury benchmark.

    It holds the bytes `PIEH`, width and height as int32, and then the flow row
    by row, float32, horizontal and vertical motion in turn; all little-endian.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise ValueError(f"Cannot read the flow: {error}") from error
    if not content.startswith(_MAGIC) or len(content) < 12:
        raise ValueError(
            f"A .flo file must begin with {_MAGIC!r}, width and height. "
            f"Received: {path!r}, which begins with {content[:12]!r}"
        )
    width, height = np.frombuffer(content, "<i4", 2, offset=4).tolist()
    expected = 12 + 8 * width * height
    if min(width, height) < 1 or len(content) != expected:
        raise ValueError(
            f"A .flo file of {height}x{width} pixels must have {expected} "
            f"bytes. Received: {path!r} of {len(content)} bytes"
        )
    values = np.frombuffer(content, "<f4", offset=12)
    return values.reshape(height, width, 2).astype("float32")
