"""Which clips of which videos there are, and their frames."""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.video.folder import Video, standardize_videos
from keras_sspcab.data.video.frames import frame_size, read_frame
from keras_sspcab.data.video.reading import (
    count_frames,
    frame_paths,
    iterate_frames,
)

#: Returns a clip from the position of its video and those of its frames.
ClipReader = Callable[[int, np.ndarray], np.ndarray]


class Clips:
    """The clips of several videos, numbered in order; see `clip_dataset`.

    Attributes:
        counts: Frames of each video.
        span: Frames from the first to the last of a clip, both included.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        length: int,
        stride: int = 1,
        step: int = 1,
        counts: Sequence[int] | None = None,
    ) -> None:
        self.videos = videos
        self.length = standardize_int(length, "clip_length", 1)
        self.stride = standardize_int(stride, "stride", 1)
        self.step = standardize_int(step, "step", 1)
        self.span = (length - 1) * stride + 1
        if counts is None:
            counts = [count_frames(video) for video in videos]
        self.counts = counts
        self._ends = np.cumsum([(c - self.span) // step + 1 for c in counts])
        short = [
            f"{video.name} ({count} frames)"
            for video, count in zip(videos, counts, strict=True)
            if count < self.span
        ]
        if short:
            raise ValueError(
                f"A video needs at least {self.span} frames for one clip of "
                f"{length} frames with stride {stride}. Received: "
                f"{len(short)} shorter videos: {enumerate_names(short)}. "
                "Leave them out, or take shorter clips."
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def locate(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns videos `(n,)` and frames `(n, length)` of clips `(n,)`."""
        videos = np.searchsorted(self._ends, numbers, side="right")
        before = np.where(videos > 0, self._ends[videos - 1], 0)
        starts = (numbers - before) * self.step
        offsets = np.arange(self.length) * self.stride
        return videos, starts[:, np.newaxis] + offsets

    def stream(
        self, image_size: tuple[int, int], channels: int
    ) -> Iterator[tuple[np.ndarray, dict[str, int]]]:
        """Yields each clip with its video and last frame, decoded once."""
        for position, video in enumerate(self.videos):
            window: collections.deque = collections.deque(maxlen=self.span)
            last = -1
            for last, frame in enumerate(
                iterate_frames(video, image_size, channels)
            ):
                window.append(frame)
                start = last - self.span + 1
                if start >= 0 and start % self.step == 0:
                    clip = list(window)[:: self.stride]
                    yield np.stack(clip), {"video": position, "frame": last}
            if last + 1 != self.counts[position]:
                raise ValueError(
                    f"The video {video.path!r} has {self.counts[position]} "
                    f"packets, but {last + 1} frames. If these are all, state "
                    f"Video(..., num_frames={last + 1})."
                )


def count_clips(
    videos: Iterable[Video], clip_length: int, stride: int = 1, step: int = 1
) -> int:
    """Returns how many clips `clip_dataset` cuts from videos.

    Args:
        videos: The videos.
        clip_length: Frames a clip.
        stride: Steps from one frame of a clip to the next. Defaults to 1.
        step: Steps from one clip of a video to the next. Defaults to 1.

    Raises:
        ValueError: If an argument is out of range, or a video is too short or
            cannot be read.

    Example:
    >>> count_clips(Video("a", "a.mp4", num_frames=10), clip_length=4)
    7
    """
    return len(Clips(standardize_videos(videos), clip_length, stride, step))


def clips_from_arrays(arrays: Sequence[np.ndarray]) -> ClipReader:
    """Reads clips from decoded frames; see `cached_frames`."""
    return lambda video, frames: arrays[video][frames]


def clips_from_folders(
    videos: Sequence[Video], image_size: tuple[int, int], channels: int
) -> ClipReader:
    """Reads clips from folders of frames, one file a frame."""
    paths = [frame_paths(video) for video in videos]
    sizes = [frame_size(of_video[0]) for of_video in paths]

    def read(video: int, frames: np.ndarray) -> np.ndarray:
        files = [paths[video][frame] for frame in frames]
        return np.stack(
            [read_frame(f, image_size, channels, sizes[video]) for f in files]
        )

    return read
