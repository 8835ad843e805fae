"""Optical flow of videos: estimated, or read from files.

It says how far what is at a pixel of the frame before has moved to the right
and down, in pixels: float32 `(height, width, 2)`, and 0 for the first frame.
OpenCV is imported at the first use.
"""

import abc
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from keras_sspcab.data.decoding import standardize_size
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.frames import fit_frame
from keras_sspcab.data.video.per_frame import (
    FrameFiles,
    FrameSource,
    load_array,
    require_one_a_frame,
)
from keras_sspcab.data.video.reading import count_frames, iterate_frames
from keras_sspcab.imports import import_optional

__all__ = ["DISFlow", "FlowFiles", "OpticalFlow"]

# OpenCV crashes on some frames that are lower and wide.
_SMALLEST_SIDE = 32

# On smaller frames, OpenCV's object changes its parameters at the first call,
# so that a second one would give another flow.
_SMALL = 128

# OpenCV's object keeps buffers and works for one thread at a time.
_local = threading.local()

# The first bytes of .flo files.
_MAGIC = b"PIEH"


class OpticalFlow(FrameSource):
    """Estimates the flow between two frames.

    A subclass writes `estimate` and `settings`. It is called in threads, for
    several pairs of frames at a time. `channels` is 1 if `estimate` takes gray
    frames, 3 for color.

    Example:
    >>> class NoMotion(OpticalFlow):
    ...     settings = {"name": "no motion", "version": 1}
    ...
    ...     def estimate(self, previous, current):
    ...         return np.zeros((*current.shape, 2))
    >>> frame = np.zeros((48, 64), "uint8")
    >>> NoMotion()(frame, frame).shape
    (48, 64, 2)
    """

    channels: int = 1

    @abc.abstractmethod
    def estimate(self, previous: np.ndarray, current: np.ndarray) -> np.ndarray:
        """Returns the flow between two uint8 frames.

        They are `(height, width)`, or `(height, width, 3)`.
        """

    def __call__(self, previous: Any, current: Any) -> np.ndarray:
        """Returns the flow between two uint8 frames, gray or in color."""
        frames = [np.asarray(previous), np.asarray(current)]
        shape = frames[0].shape
        is_image = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
        if (
            not is_image
            or shape != frames[1].shape
            or any(frame.dtype != np.uint8 for frame in frames)
        ):
            raise ValueError(
                "Flow is estimated between two uint8 frames of one shape, "
                "(height, width) or (height, width, 1 or 3). Received: "
                f"{frames[0].dtype} {shape} and {frames[1].dtype} "
                f"{frames[1].shape}"
            )
        fitted = [fit_frame(frame, None, self.channels) for frame in frames]
        if self.channels == 1:
            fitted = [frame[..., 0] for frame in fitted]
        flow = np.asarray(self.estimate(*fitted), "float32")
        return require_flow(flow, shape[:2], "The estimated flow")

    def iterate(
        self, video: Video, image_size: Any = None
    ) -> Iterator[np.ndarray]:
        """Yields the flow to each frame; frames are resized before."""
        previous = None
        for frame in iterate_frames(video, image_size, self.channels):
            if previous is None:
                yield np.zeros((*frame.shape[:2], 2), "float32")
            else:
                yield self(previous, frame)
            previous = frame


class DISFlow(OpticalFlow):
    """Optical flow by dense inverse search (Kroeger et al., ECCV 2016).

    It needs no weights, and takes a few milliseconds a frame on the CPU, but
    OpenCV: `pip install "keras-sspcab[video]"`.

    Example:
    >>> rng = np.random.default_rng(0)
    >>> frame = rng.integers(0, 255, (48, 64), dtype="uint8")
    >>> bool(abs(DISFlow()(frame, frame)).max() < 0.1)
    True
    """

    @property
    def settings(self) -> dict[str, Any]:
        """The preset and OpenCV's version."""
        version = _opencv().__version__
        return {"name": "DIS", "preset": "medium", "opencv": version}

    def estimate(self, previous: np.ndarray, current: np.ndarray) -> np.ndarray:
        """Returns the flow between two gray frames."""
        if min(previous.shape) < _SMALLEST_SIDE:
            raise ValueError(
                f"DIS needs frames of at least {_SMALLEST_SIDE}x"
                f"{_SMALLEST_SIDE} pixels. Received: {previous.shape[0]}x"
                f"{previous.shape[1]}"
            )
        is_small = max(previous.shape) < _SMALL
        estimator = getattr(_local, "estimator", None)
        if estimator is None or is_small:
            cv2 = _opencv()
            preset = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM
            estimator = cv2.DISOpticalFlow_create(preset)
            if not is_small:
                _local.estimator = estimator
        return estimator.calc(previous, current, None)


def _opencv() -> Any:
    return import_optional("cv2", "Optical flow needs OpenCV", "video")


def resize_flow(flow: Any, image_size: tuple[int, int]) -> np.ndarray:
    """Resizes a flow, bilinear with antialiasing, and its values with it."""
    flow = np.asarray(flow, "float32")
    if flow.shape[:2] == tuple(image_size):
        return flow
    height, width = image_size
    factors = width / flow.shape[1], height / flow.shape[0]
    planes = []
    for axis, factor in enumerate(factors):
        plane = Image.fromarray(np.ascontiguousarray(flow[..., axis]))
        resized = plane.resize((width, height), Image.Resampling.BILINEAR)
        planes.append(np.asarray(resized) * factor)
    return np.stack(planes, axis=-1).astype("float32")


def require_flow(
    flow: np.ndarray, size: tuple[int, ...] | None, what: str
) -> np.ndarray:
    """Returns the flow, or raises a ValueError that begins with `what`."""
    is_flow = flow.ndim == 3 and flow.shape[2] == 2 and flow.size > 0
    if not is_flow or (size is not None and flow.shape[:2] != size):
        wanted = "height, width" if size is None else f"{size[0]}, {size[1]}"
        raise ValueError(
            f"{what} must be an array ({wanted}, 2). Received: shape "
            f"{flow.shape}"
        )
    # Middlebury marks unknown flow by values above 1e9.
    unknown = ~(np.abs(flow) < 1e9)
    if unknown.any():
        raise ValueError(
            f"{what} must be known at every pixel. Received: values that are "
            f"not finite or above 1e9 at {int(unknown.any(-1).sum())} pixels"
        )
    return flow


# === Files ===


class FlowFiles(FrameFiles):
    """Reads optical flow from `.flo` or `.npy` files.

    For a video called `NAME`, `folder` holds either `NAME.npy` of shape
    `(frames, height, width, 2)`, or a folder `NAME` with a `.flo` or `.npy`
    file `(height, width, 2)` for each frame, in the order of their names. Where
    there is one less than frames, the first frame has none. `scale` is what
    values are multiplied by to give pixels.

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
        """Yields the flow to each frame, resized and with its values scaled."""
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
    by row, float32, horizontal and vertical in turn; all little-endian.
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
