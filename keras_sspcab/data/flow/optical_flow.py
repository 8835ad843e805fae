"""Optical flow: how far each pixel moves from one frame to the next."""

import abc
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from PIL import Image

from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.pixels import fit_frame
from keras_sspcab.data.video.reading import iterate_frames


class FlowSource(Protocol):
    """What gives the flows of a video: an estimator, or files."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the flows depend on, beside the video; fit for JSON."""

    def files(self, video: Video) -> list[str]:
        """Lists the files that flows of a video are read from, if any."""

    def iterate(
        self, video: Video, image_size: Any = None
    ) -> Iterator[np.ndarray]:
        """Yields the flow to each frame of a video, in order."""


class OpticalFlow(abc.ABC):
    """Estimates the flow between two frames.

    A subclass writes `estimate` and `settings`:

    >>> class MyFlow(OpticalFlow):
    ...     channels = 3
    ...
    ...     @property
    ...     def settings(self):
    ...         return {"name": "my flow", "version": 1}
    ...
    ...     def estimate(self, previous, current):
    ...         return network(previous, current)

    It works in threads, on several pairs of frames at a time.

    Attributes:
        channels: 1 if `estimate` takes gray frames, 3 for color.
    """

    channels: int = 1

    @property
    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the flow depends on, fit for JSON: the key of caches."""

    @abc.abstractmethod
    def estimate(self, previous: np.ndarray, current: np.ndarray) -> np.ndarray:
        """Returns the flow from the first frame to the second.

        Args:
            previous: uint8 array `(height, width)`, or with three channels.
            current: Array of the same shape.

        Returns:
            Array `(height, width, 2)`: motion to the right and down, in pixels.
        """

    def __call__(self, previous: Any, current: Any) -> np.ndarray:
        """Estimates the flow between two frames of any color.

        Args:
            previous: uint8 array `(height, width)`, or with 1 or 3 channels.
            current: Array of the same shape.

        Returns:
            float32 array `(height, width, 2)`: how far what is at a pixel of
            `previous` has moved to the right and down, in pixels.

        Raises:
            ValueError: If the frames are not as described, or the flow is not
                finite.
        """
        frames = [np.asarray(previous), np.asarray(current)]
        for frame in frames:
            is_image = frame.ndim == 2 or frame.shape[2:] in ((1,), (3,))
            if frame.dtype != np.uint8 or frame.ndim not in (2, 3):
                is_image = False
            if not is_image or frame.shape != frames[0].shape:
                raise ValueError(
                    "Flow is estimated between two uint8 frames of one shape, "
                    "(height, width) or (height, width, 1 or 3). Received: "
                    f"{frames[0].dtype} {frames[0].shape} and "
                    f"{frames[1].dtype} {frames[1].shape}"
                )
        fitted = [fit_frame(frame, None, self.channels) for frame in frames]
        if self.channels == 1:
            fitted = [frame[..., 0] for frame in fitted]
        flow = np.asarray(self.estimate(*fitted), "float32")
        return require_flow(flow, frames[0].shape[:2], "The estimated flow")

    def files(self, video: Video) -> list[str]:
        """Returns nothing: flows are estimated from frames."""
        return []

    def iterate(
        self, video: Video, image_size: Any = None
    ) -> Iterator[np.ndarray]:
        """Yields the flow from the frame before to each frame, in order.

        Nothing comes before the first frame: its flow is 0.

        Args:
            video: The video.
            image_size: Height and width that frames are resized to first; None
                (the default) keeps theirs.

        Yields:
            float32 arrays `(height, width, 2)`, one a frame, in pixels of the
            resized frames.
        """
        previous = None
        for frame in iterate_frames(video, image_size, self.channels):
            if previous is None:
                yield np.zeros((*frame.shape[:2], 2), "float32")
            else:
                yield self(previous, frame)
            previous = frame


def resize_flow(flow: Any, image_size: tuple[int, int]) -> np.ndarray:
    """Resizes a flow, and with it the distances in pixels.

    Args:
        flow: Array `(height, width, 2)`.
        image_size: New height and width.

    Returns:
        float32 array; bilinear with antialiasing.
    """
    flow = np.asarray(flow, "float32")
    if flow.shape[:2] == tuple(image_size):
        return flow
    height, width = image_size
    factors = width / flow.shape[1], height / flow.shape[0]
    planes = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(flow[..., axis])).resize(
                (width, height), Image.Resampling.BILINEAR
            )
        )
        * factor
        for axis, factor in enumerate(factors)
    ]
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
