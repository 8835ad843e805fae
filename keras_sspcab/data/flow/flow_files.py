"""Flows that were computed elsewhere, as files."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.decoding import standardize_size
from keras_sspcab.data.flow.middlebury import read_flo
from keras_sspcab.data.flow.optical_flow import require_flow, resize_flow
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.frames import natural_key
from keras_sspcab.data.video.reading import count_frames

#: Extensions of files with one flow.
FLOW_EXTENSIONS = (".flo", ".npy")


class FlowFiles:
    """Reads optical flow from `.flo` or `.npy` files.

    For a video called `NAME`, `folder` holds either `NAME.npy` of shape
    `(frames, height, width, 2)`, or a folder `NAME` with a `.flo` or `.npy`
    file `(height, width, 2)` for each frame, in the order of their names. A
    flow is that from the frame before, to the right and down, in pixels. Where
    there is one less than frames, the first frame has none: its flow is 0.

    Args:
        folder: The folder.
        scale: What values are multiplied with to give pixels. Defaults to 1.
    """

    def __init__(self, folder: Any, scale: float = 1.0) -> None:
        self.folder = os.path.expanduser(os.fspath(folder))
        self.scale = float(scale)
        if not os.path.isdir(self.folder):
            raise ValueError(
                "The folder of flows does not exist. Received: "
                f"folder={self.folder!r}"
            )

    def __repr__(self) -> str:
        return f"FlowFiles({self.folder!r}, scale={self.scale})"

    @property
    def settings(self) -> dict[str, Any]:
        """The scale; the files count by themselves."""
        return {"name": "files", "scale": self.scale}

    def files(self, video: Video) -> list[str]:
        """Lists the files with the flows of a video.

        Raises:
            ValueError: If there are none.
        """
        single = os.path.join(self.folder, f"{video.name}.npy")
        if os.path.isfile(single):
            return [single]
        inside = os.path.join(self.folder, video.name)
        names = os.listdir(inside) if os.path.isdir(inside) else []
        names = [
            name
            for name in names
            if name[0] != "." and name.lower().endswith(FLOW_EXTENSIONS)
        ]
        if not names:
            there = sorted(os.listdir(self.folder), key=natural_key)
            raise ValueError(
                f"There are no flows of the video {video.name!r}. Received: "
                f"{self.folder!r} with {enumerate_names(there) or 'nothing'}. "
                f"There must be {video.name}.npy or {video.name}/*.flo."
            )
        names.sort(key=natural_key)
        return [os.path.join(inside, name) for name in names]

    def iterate(
        self, video: Video, image_size: Any = None
    ) -> Iterator[np.ndarray]:
        """Yields the flow from the frame before to each frame, in order.

        Args:
            video: The video.
            image_size: Height and width that flows are resized to, and their
                values scaled; None (the default) keeps theirs.

        Yields:
            float32 arrays `(height, width, 2)`, one a frame.

        Raises:
            ValueError: If there are no flows, not as many as frames, or one
                cannot be read or has another size. The error names the file.
        """
        size = None if image_size is None else standardize_size(image_size)
        files = self.files(video)
        is_single = os.path.dirname(files[0]) == self.folder
        flows: Any = files
        if is_single:
            flows = _load(files[0])
            if flows.ndim != 4:
                raise ValueError(
                    "The flows of a video must be an array (frames, height, "
                    f"width, 2). Received: shape {flows.shape} in {files[0]!r}"
                )
        frames = count_frames(video)
        if len(flows) not in (frames, frames - 1):
            raise ValueError(
                "There must be one flow a frame, or one less. Received: "
                f"{len(flows)} flows in {files[0] if is_single else files!r} "
                f"for the {frames} frames of {video.path!r}"
            )
        first = None
        for position, item in enumerate(flows):
            what = f"{files[0]!r}, flow {position}" if is_single else repr(item)
            flow = item if is_single else _read(item)
            flow = np.asarray(flow, "float32") * np.float32(self.scale)
            flow = require_flow(flow, first, f"The flow {what}")
            if first is None:
                first = flow.shape[:2]
                if len(flows) < frames:
                    yield np.zeros((*(size or first), 2), "float32")
            yield flow if size is None else resize_flow(flow, size)


def _read(path: str) -> np.ndarray:
    return read_flo(path) if path.lower().endswith(".flo") else _load(path)


def _load(path: str) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"Cannot read the flow {path!r}: {error}") from error
