"""Which pixels of a frame belong to objects."""

import abc
import dataclasses
import os
from collections.abc import Iterator

import numpy as np

from keras_sspcab.data.objects.proposals import MotionProposals
from keras_sspcab.data.scanning import IMAGE_EXTENSIONS
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.masks import iterate_masks
from keras_sspcab.data.video.per_frame import FrameFiles, FrameSource


class MaskSource(FrameSource):
    """Gives the masks of the objects in a video: a network, or files.

    Example:
    >>> isinstance(MaskFiles("."), MaskSource)
    True
    """

    def has(self, video: Video) -> bool:
        """Returns whether there are masks of a video; True by default."""
        return True

    @abc.abstractmethod
    def iterate(
        self, video: Video, frame_size: tuple[int, int]
    ) -> Iterator[np.ndarray]:
        """Yields the mask of each frame, bool `(height, width)`, in order."""


class MaskFiles(FrameFiles, MaskSource):
    """Reads the masks of objects from files, as a segmentation gives them.

    For a video called `NAME`, `folder` holds a folder `NAME` with an image for
    each frame, in the order of their names, or an array `NAME.npy` `(frames,
    height, width)`. Pixels above 0 belong to an object, so that instances may
    have numbers. Other sizes are brought to that of the frames by the nearest
    neighbor.

    Args:
        folder: The folder. Videos without masks in it have none.

    Raises:
        ValueError: If there is no such folder.

    Example:
    >>> MaskFiles(".").has(Video("street", "street.mp4"))
    False
    """

    what = "masks"
    single = (".npy",)
    several = IMAGE_EXTENSIONS

    def has(self, video: Video) -> bool:
        """Returns whether there is a file or folder for a video."""
        base = os.path.join(self.folder, video.name)
        return os.path.isfile(f"{base}.npy") or os.path.isdir(base)

    def iterate(
        self, video: Video, frame_size: tuple[int, int]
    ) -> Iterator[np.ndarray]:
        """Yields the mask of each frame; a ValueError says what is missing."""
        files, is_single = self._find(video)
        path = files[0] if is_single else os.path.dirname(files[0])
        masked = dataclasses.replace(video, masks=path)
        return iterate_masks(masked, frame_size)


class MotionMasks(MaskSource):
    """Takes what moves for the objects: masks without a trained network.

    Args:
        motion: What finds motion.

    Example:
    >>> MotionMasks(MotionProposals()).settings["name"]
    'motion'
    """

    def __init__(self, motion: MotionProposals) -> None:
        self.motion = motion

    @property
    def settings(self) -> dict[str, object]:
        """Those of the motion."""
        return {"name": "motion", "motion": self.motion.settings}

    def iterate(
        self, video: Video, frame_size: tuple[int, int]
    ) -> Iterator[np.ndarray]:
        """Yields what moves in each frame, at the size of the frame."""
        for mask in self.motion.masks(video):
            yield mask > 0
