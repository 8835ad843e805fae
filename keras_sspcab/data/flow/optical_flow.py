"""Optical flow: how far each pixel moves from one frame to the next."""

import abc
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from keras_sspcab.checks import standardize_choice
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.frames import fit_frame
from keras_sspcab.data.video.per_frame import FrameSource
from keras_sspcab.data.video.reading import iterate_frames
from keras_sspcab.imports import import_optional

# OpenCV crashes on some frames that are lower and wide.
_SMALLEST_SIDE = 32

# On smaller frames, OpenCV's object changes its parameters at the first call,
# so that a second one would give another flow.
_SMALL = 128


class FlowSource(FrameSource):
    """Gives the flows of a video: an estimator, or files.

    Example:
    >>> isinstance(DISFlow(), FlowSource)
    True
    """

    @abc.abstractmethod
    def iterate(
        self, video: Video, image_size: Any = None
    ) -> Iterator[np.ndarray]:
        """Yields the flow from the frame before to each frame, in order.

        Args:
            video: The video.
            image_size: Height and width of the flows, in pixels, which are
                their unit as well; None (the default) for those of the source.

        Yields:
            float32 arrays `(height, width, 2)`, one a frame. Nothing comes
            before the first frame: its flow is 0.
        """


class OpticalFlow(FlowSource):
    """Estimates the flow between two frames.

    A subclass writes `estimate` and `settings`. It is called in threads, for
    several pairs of frames at a time.

    Attributes:
        channels: 1 if `estimate` takes gray frames, 3 for color.

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
        """Returns the flow `(height, width, 2)` between two uint8 frames.

        They are `(height, width)`, or `(height, width, 3)`. See `__call__`.
        """

    def __call__(self, previous: Any, current: Any) -> np.ndarray:
        """Returns the flow between two frames, gray or in color.

        Args:
            previous: uint8 array `(height, width)`, or with 1 or 3 channels.
            current: Array of the same shape.

        Returns:
            float32 array `(height, width, 2)`: how far what is at a pixel of
            `previous` has moved to the right and down, in pixels.

        Raises:
            ValueError: If a frame or the flow is not as described.
        """
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
    """Optical flow by dense inverse search, as OpenCV implements it.

    It needs no training and no weights, and takes a few milliseconds a frame on
    the CPU. It needs OpenCV: `pip install "keras-sspcab[video]"`.

    References:
    - Kroeger, Timofte, Dai and Van Gool, "Fast Optical Flow using Dense
      Inverse Search", ECCV 2016

    Args:
        preset: `"ultrafast"`, `"fast"` or `"medium"` (the default), the most
            accurate one.

    Example:
    >>> rng = np.random.default_rng(0)
    >>> frame = rng.integers(0, 255, (48, 64), dtype="uint8")
    >>> bool(abs(DISFlow()(frame, frame)).max() < 0.1)
    True
    """

    def __init__(self, preset: str = "medium") -> None:
        self.preset = standardize_choice(
            preset, ("ultrafast", "fast", "medium"), "preset"
        )
        # OpenCV's object keeps buffers and works for one thread at a time.
        self._local = threading.local()

    def __repr__(self) -> str:
        return f"DISFlow(preset={self.preset!r})"

    def __reduce__(self) -> Any:
        return type(self), (self.preset,)

    @property
    def settings(self) -> dict[str, Any]:
        """The preset and OpenCV's version."""
        version = _opencv().__version__
        return {"name": "DIS", "preset": self.preset, "opencv": version}

    def estimate(self, previous: np.ndarray, current: np.ndarray) -> np.ndarray:
        """Returns the flow between two gray frames."""
        if min(previous.shape) < _SMALLEST_SIDE:
            raise ValueError(
                f"DIS needs frames of at least {_SMALLEST_SIDE}x"
                f"{_SMALLEST_SIDE} pixels. Received: {previous.shape[0]}x"
                f"{previous.shape[1]}"
            )
        is_small = max(previous.shape) < _SMALL
        estimator = getattr(self._local, "estimator", None)
        if estimator is None or is_small:
            cv2 = _opencv()
            preset = f"DISOPTICAL_FLOW_PRESET_{self.preset.upper()}"
            estimator = cv2.DISOpticalFlow_create(getattr(cv2, preset))
            if not is_small:
                self._local.estimator = estimator
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
