"""Which pixels of a frame belong to objects."""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.objects.motion import MotionProposals
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.frames import list_frames, natural_key
from keras_sspcab.data.video.masks import iterate_masks


class MaskSource(Protocol):
    """What gives the masks of the objects in a video: a network, or files."""

    @property
    def settings(self) -> dict[str, Any]:
        """What masks depend on, beside the video; fit for JSON."""

    def has(self, video: Video) -> bool:
        """Says whether there are masks of a video."""

    def files(self, video: Video) -> list[str]:
        """Lists the files that masks of a video are read from, if any."""

    def iterate(
        self, video: Video, frame_size: tuple[int, int]
    ) -> Iterator[np.ndarray]:
        """Yields the mask of each frame, bool `(height, width)`, in order."""


class MaskFiles:
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
    """

    def __init__(self, folder: Any) -> None:
        self.folder = os.path.expanduser(os.fspath(folder))
        if not os.path.isdir(self.folder):
            raise ValueError(
                "The folder of masks does not exist. Received: "
                f"folder={self.folder!r}"
            )

    def __repr__(self) -> str:
        return f"MaskFiles({self.folder!r})"

    @property
    def settings(self) -> dict[str, Any]:
        """Nothing but the name; the files count by themselves."""
        return {"name": "files"}

    def has(self, video: Video) -> bool:
        """Says whether there are masks of a video."""
        return self._path(video) is not None

    def files(self, video: Video) -> list[str]:
        """Lists the files with the masks of a video.

        Raises:
            ValueError: If there are none.
        """
        path = self._require(video)
        return list_frames(path) if os.path.isdir(path) else [path]

    def iterate(
        self, video: Video, frame_size: tuple[int, int]
    ) -> Iterator[np.ndarray]:
        """Yields the mask of each frame, in order.

        Args:
            video: The video.
            frame_size: Height and width that masks are brought to.

        Raises:
            ValueError: If there are no masks, not as many as frames, or one
                cannot be read.
        """
        masked = dataclasses.replace(video, masks=self._require(video))
        return iterate_masks(masked, frame_size)

    def _path(self, video: Video) -> str | None:
        base = os.path.join(self.folder, video.name)
        paths = (f"{base}.npy", base)
        return next((path for path in paths if os.path.exists(path)), None)

    def _require(self, video: Video) -> str:
        path = self._path(video)
        if path is None:
            there = sorted(os.listdir(self.folder), key=natural_key)
            raise ValueError(
                f"There are no masks of the video {video.name!r}. Received: "
                f"{self.folder!r} with {enumerate_names(there) or 'nothing'}. "
                f"There must be {video.name}.npy or a folder {video.name}."
            )
        return path


class MotionMasks:
    """Takes what moves for the objects: masks without a trained network.

    Args:
        motion: What finds motion.
    """

    def __init__(self, motion: MotionProposals) -> None:
        self.motion = motion

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the motion."""
        return {"name": "motion", "motion": self.motion.settings}

    def has(self, video: Video) -> bool:
        """True."""
        return True

    def files(self, video: Video) -> list[str]:
        """None: masks are computed."""
        return []

    def iterate(
        self, video: Video, frame_size: tuple[int, int]
    ) -> Iterator[np.ndarray]:
        """Yields what moves in each frame, at the size of the frame."""
        for mask in self.motion.masks(video):
            yield mask > 0
