"""What finds objects in videos."""

import abc
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_sspcab.data.video.folder import Video


class ObjectProposals(abc.ABC):
    """Finds boxes around objects in each frame of a video.

    A subclass writes `boxes` and `settings`:

    >>> class MyDetector(ObjectProposals):
    ...     name = "my detector"
    ...
    ...     @property
    ...     def settings(self):
    ...         return {"name": self.name, "version": 1}
    ...
    ...     def boxes(self, video):
    ...         for frame in iterate_frames(video):
    ...             yield network(frame)

    It works in threads, on several videos at a time.

    Attributes:
        name: What the proposals are called in files and reports.
    """

    name: str

    @property
    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """What boxes depend on, beside the video; fit for JSON."""

    def files(self, video: Video) -> list[str]:
        """Lists the files that the boxes of a video depend on, if any."""
        return []

    @abc.abstractmethod
    def boxes(self, video: Video) -> Iterator[np.ndarray]:
        """Yields the boxes in each frame of a video, in order.

        Args:
            video: The video.

        Yields:
            Arrays `(n, 5)`, one a frame: `x_min`, `y_min`, `x_max`, `y_max`
            in pixels of the frame, both ends included, and a confidence.
        """
