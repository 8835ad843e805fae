"""Which clips of which videos there are, and their frames."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.frames import frame_size, read_frame
from keras_sspcab.data.video.reading import (
    count_frames,
    frame_paths,
    iterate_frames,
)

#: Returns a clip from the position of its video and those of its frames.
ClipReader = Callable[[int, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class ClipPlan:
    """How clips are cut from a video.

    Attributes:
        length: Frames a clip.
        stride: Steps from one frame of a clip to the next.
        step: Steps from the start of one clip to that of the next.
    """

    length: int
    stride: int = 1
    step: int = 1

    def __post_init__(self) -> None:
        standardize_int(self.length, "clip_length", 1)
        standardize_int(self.stride, "stride", 1)
        standardize_int(self.step, "step", 1)

    @property
    def span(self) -> int:
        """Frames from the first to the last of a clip, both included."""
        return (self.length - 1) * self.stride + 1

    def count(self, num_frames: int) -> int:
        """Returns how many clips a video has."""
        return max(0, (num_frames - self.span) // self.step + 1)

    def require_clips(
        self, videos: Sequence[Video], counts: Sequence[int]
    ) -> None:
        """Raises a ValueError that names videos without a single clip."""
        short = [
            f"{video.name} ({count} frames)"
            for video, count in zip(videos, counts, strict=True)
            if not self.count(count)
        ]
        if short:
            raise ValueError(
                f"A video needs at least {self.span} frames for one clip of "
                f"{self.length} frames with stride {self.stride}. Received: "
                f"{len(short)} shorter videos: {enumerate_names(short)}. "
                "Leave them out, or take shorter clips."
            )


class ClipIndex:
    """Numbers the clips of several videos, in order.

    Args:
        counts: Frames of each video.
        plan: How clips are cut.
    """

    def __init__(self, counts: Sequence[int], plan: ClipPlan) -> None:
        self.plan = plan
        self._ends = np.cumsum([plan.count(count) for count in counts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def locate(self, clips: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns the videos of clips and their frames.

        Args:
            clips: Integers `(n,)`, numbers of clips.

        Returns:
            Positions of the videos `(n,)` and of the frames `(n, length)`.
        """
        clips = np.asarray(clips)
        videos = np.searchsorted(self._ends, clips, side="right")
        before = np.where(videos > 0, self._ends[videos - 1], 0)
        starts = (clips - before) * self.plan.step
        offsets = np.arange(self.plan.length) * self.plan.stride
        return videos, starts[:, np.newaxis] + offsets


def count_clips(
    videos: Iterable[Video], clip_length: int, stride: int = 1, step: int = 1
) -> int:
    """Returns how many clips `clip_dataset` cuts from videos.

    Args:
        videos: The videos.
        clip_length: Frames a clip.
        stride: Steps from one frame of a clip to the next.
        step: Steps from one clip of a video to the next.

    Raises:
        ValueError: If an argument is out of range, or a video is too short or
            cannot be read.
    """
    plan, given = ClipPlan(clip_length, stride, step), tuple(videos)
    counts = [count_frames(video) for video in given]
    plan.require_clips(given, counts)
    return sum(map(plan.count, counts))


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


def stream_clips(
    videos: Sequence[Video],
    counts: Sequence[int],
    plan: ClipPlan,
    image_size: tuple[int, int],
    channels: int,
) -> Iterator[tuple[np.ndarray, int, int]]:
    """Yields the clips in order; each frame is decoded once.

    Args:
        videos: The videos.
        counts: Frames that each of them must turn out to have.
        plan: How clips are cut.
        image_size: Height and width, in pixels.
        channels: 1 or 3.

    Yields:
        A clip `(length, height, width, channels)`, the position of its video
        and that of its last frame.
    """
    for position, video in enumerate(videos):
        window: collections.deque = collections.deque(maxlen=plan.span)
        frames = iterate_frames(video, image_size, channels)
        last = -1
        for last, frame in enumerate(frames):
            window.append(frame)
            start = last - plan.span + 1
            if start >= 0 and start % plan.step == 0:
                clip = list(window)[:: plan.stride]
                yield np.stack(clip), position, last
        if last + 1 != counts[position]:
            raise ValueError(
                f"The video {video.path!r} has {counts[position]} packets, but "
                f"{last + 1} frames. If these are all, state "
                f"Video(..., num_frames={last + 1})."
            )
