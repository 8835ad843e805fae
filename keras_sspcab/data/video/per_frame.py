"""What belongs to each frame of a video: masks, flows or boxes."""

import abc
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.frames import list_by_name, natural_key
from keras_sspcab.data.video.reading import count_frames


class FrameSource(abc.ABC):
    """Gives something for each frame of a video, computed or from files.

    Masks and flows are what `iterate` yields.
    """

    @property
    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the result depends on beside the video and `files`, as JSON."""

    def files(self, video: Video) -> list[str]:
        """Lists the files that the result for a video depends on, if any."""
        return []

    def has(self, video: Video) -> bool:
        """Returns whether there is something for a video."""
        return True

    def iterate(
        self, video: Video, image_size: Any = None
    ) -> Iterator[np.ndarray]:
        """Yields an array for each frame, of a size or that of the source."""
        raise NotImplementedError


class FrameFiles(FrameSource):
    """What belongs to frames, in files of a folder that are named like videos.

    `what` says what they hold, `single` has the extensions of files with
    everything of a video, `several` those of files for each frame.
    """

    what: str
    single: tuple[str, ...]
    several: tuple[str, ...]

    def __init__(self, folder: Any) -> None:
        self.folder = os.path.expanduser(os.fspath(folder))
        if not os.path.isdir(self.folder):
            raise ValueError(
                f"The folder of {self.what} does not exist. "
                f"Received: folder={self.folder!r}"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.folder!r})"

    @property
    def settings(self) -> dict[str, Any]:
        """Nothing but a name; the files count by themselves."""
        return {"name": "files"}

    def files(self, video: Video) -> list[str]:
        """Lists the files of a video in order, or raises a ValueError."""
        return self._find(video)[0]

    def _find(self, video: Video) -> tuple[list[str], bool]:
        return find_files(
            self.folder, video, self.what, self.single, self.several
        )


def find_files(
    folder: str,
    video: Video,
    what: str,
    single: tuple[str, ...],
    several: tuple[str, ...],
) -> tuple[list[str], bool]:
    """Finds the files of a video, and says whether it is a single one."""
    base = os.path.join(folder, video.name)
    for extension in single:
        if os.path.isfile(base + extension):
            return [base + extension], True
    files = list_by_name(base, several) if os.path.isdir(base) else []
    if not files:
        there = enumerate_names(sorted(os.listdir(folder), key=natural_key))
        patterns = [*single, *(f"/*{extension}" for extension in several)]
        raise ValueError(
            f"There are no {what} of the video {video.name!r}. Received: "
            f"{folder!r} with {there or 'nothing'}. There must be one of: "
            f"{', '.join(video.name + pattern for pattern in patterns)}."
        )
    return files, False


def load_array(path: str, what: str) -> np.ndarray:
    """Maps an `.npy` file of numbers into memory."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        # Broken files raise many types.
        reason = str(error)
        if "pickle" in reason or "Python object" in reason:
            reason += (
                ". Pickled arrays are not read, as they can run any code. If "
                "you trust it, load it with allow_pickle=True and write each "
                "of its arrays by numpy.save"
            )
        raise ValueError(
            f"Cannot read the {what} {path!r}: {reason}"
        ) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        kind = getattr(array, "dtype", type(array).__name__)
        raise ValueError(
            f"There must be an array of numbers. Received: {kind} in {path!r}"
        )
    return array


def require_one_a_frame(
    count: int, video: Video, what: str, path: str, or_one_less: bool = False
) -> None:
    """Raises a ValueError unless there are as many as frames."""
    frames = count_frames(video)
    if count != frames and not (or_one_less and count == frames - 1):
        less = ", or one less" if or_one_less else ""
        raise ValueError(
            f"There must be one {what} a frame{less}. Received: {count} "
            f"in {path!r} for the {frames} frames of {video.path!r}"
        )


def zip_frames(
    video: Video, parts: Mapping[str, Iterable[Any]]
) -> Iterator[tuple[Any, ...]]:
    """Yields what belongs to each frame; there must be as much of each part."""
    ended = object()
    steps = itertools.zip_longest(*parts.values(), fillvalue=ended)
    for position, step in enumerate(steps):
        pairs = zip(parts, step, strict=True)
        if short := [name for name, value in pairs if value is ended]:
            raise ValueError(
                f"There must be one a frame of each of: {', '.join(parts)}. "
                f"Received: only {position} {' and '.join(short)} for "
                f"{video.path!r}"
            )
        yield step
