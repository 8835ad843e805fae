"""Clips: which there are in videos, and batches of them."""

import collections
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.batching import Batching
from keras_sspcab.data.cache import (
    open_array,
    standardize_cache_folder,
    write_array,
)
from keras_sspcab.data.decoding import standardize_channels, standardize_size
from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.parallel import parallel_map
from keras_sspcab.data.video.folder import Video, standardize_videos
from keras_sspcab.data.video.frames import frame_size, read_frame
from keras_sspcab.data.video.reading import (
    count_frames,
    frame_paths,
    iterate_frames,
    video_cache_path,
)


def clip_dataset(
    videos: Iterable[Video],
    clip_length: int,
    image_size: Any,
    channels: int = 3,
    stride: int = 1,
    step: int = 1,
    batch_size: int = 4,
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
    cache: Any = False,
    with_index: bool = False,
    epochs: int = 1,
) -> tf.data.Dataset:
    """Makes batches of clips, float32 in [0, 1], channels last.

    In order, as videos are scored, each one is decoded from its beginning to
    its end, in constant memory whatever its length. Shuffled, as models are
    trained, clips of all videos are mixed, and their order follows from `(seed,
    epoch)` alone. Video files are then decoded once into a `cache` folder;
    folders of frames do without, but each frame is decoded once for each clip
    that it is part of. The pixels are the same: see `fit_frame`.

    Args:
        videos: Videos from `scan_video_folder`, best after `check_videos`.
        clip_length: Frames a clip. The last one is the one to score.
        image_size: Height and width, in pixels.
        channels: 1 for gray or 3 for color. Defaults to 3.
        stride: Steps from one frame of a clip to the next. Defaults to 1.
        step: Steps from one clip of a video to the next. Defaults to 1, so
            that every frame that has enough frames before it is scored.
        batch_size: Clips a batch. Defaults to 4.
        shuffle: True to shuffle all clips, in each epoch in another order.
        seed: Integer, 0 or more.
        epoch: Number of the epoch, from 0.
        cache: A local folder for decoded frames, which take height * width *
            channels bytes each; False (the default) for none.
        with_index: Adds where clips come from.
        epochs: Epochs in the dataset, from `epoch` on. Defaults to 1.

    Returns:
        A `tf.data.Dataset` of clips `(batch, frames, height, width,
        channels)`, or of pairs of them and a dict of int32 `(batch,)`:
        `"video"`, position in `videos`, and `"frame"`, position of the clip's
        last frame in its video, both from 0.

    Raises:
        ValueError: If an argument is out of range, a video is too short or
            cannot be read, or video files are to be shuffled without a cache.
            Frames that turn out to be broken later, named in the message, raise
            `tf.errors.InvalidArgumentError`.

    Example:
    >>> videos = [Video("street", "street.mp4", num_frames=250)]
    >>> clip_dataset(videos, 5, (64, 64), batch_size=8).element_spec.shape
    TensorShape([None, 5, 64, 64, 3])
    """
    given = standardize_videos(videos)
    size = standardize_size(image_size)
    channels = standardize_channels(channels)
    batching = Batching(batch_size, shuffle, seed, epoch, epochs)
    if cache is True:
        raise ValueError(
            "Frames of videos are cached on disk only. Received: cache=True. "
            "Give the path of a folder."
        )
    files = [video.path for video in given if video.kind == "file"]
    if shuffle and files and cache is False:
        raise ValueError(
            "Clips of video files can be shuffled only with a cache, as going "
            f"to single frames in them is slow. Received: {len(files)} video "
            f"files, such as {files[0]!r}. Give a local folder as `cache`."
        )
    arrays = counts = None
    if cache is not False:
        arrays = cached_frames(given, size, channels, cache)
        counts = [len(frames) for frames in arrays]
    clips = Clips(given, clip_length, stride, step, counts)
    position = tf.TensorSpec((), tf.int32)
    spec = (
        tf.TensorSpec((clip_length, *size, channels), tf.uint8),
        {"video": position, "frame": position},
    )
    if arrays is None and not shuffle:
        batches = batching.stream(
            lambda: clips.stream(size, channels), len(clips), spec
        )
    else:
        sources: Sequence[Any] | None = arrays
        if sources is None:
            sources = [_Frames(video, size, channels) for video in given]

        def read(numbers: np.ndarray) -> Any:
            positions, frames = clips.locate(numbers)
            pairs = zip(positions, frames, strict=True)
            pixels = [sources[video][of_clip] for video, of_clip in pairs]
            return np.stack(pixels), {
                "video": positions.astype("int32"),
                "frame": frames[:, -1].astype("int32"),
            }

        batches = batching.read(np.arange(len(clips)), read, spec)

    def finish(pixels: tf.Tensor, origin: dict[str, tf.Tensor]) -> Any:
        pixels = tf.image.convert_image_dtype(pixels, tf.float32)
        return (pixels, origin) if with_index else pixels

    batches = batches.map(finish, tf.data.AUTOTUNE, deterministic=True)
    return batches.prefetch(tf.data.AUTOTUNE)


def cached_frames(
    videos: Sequence[Video],
    size: tuple[int, int],
    channels: int,
    cache: Any,
) -> list[np.ndarray]:
    """Returns the frames of each video, decoded once and kept on disk.

    They are uint8 `(frames, height, width, channels)`, mapped from files.
    """
    folder = standardize_cache_folder(cache)

    def load(video: Video) -> np.ndarray:
        settings = {
            "frames": [*size, channels],
            **video.preprocessing.identity(),
        }
        path = video_cache_path(folder, video, settings)
        frames = open_array(path)
        if frames is None or video.num_frames not in (None, len(frames)):
            decoded = iterate_frames(video, size, channels)
            frames = write_array(path, decoded, "uint8")
        return frames

    return parallel_map(load, videos, "Decoding videos")


def count_clips(
    videos: Iterable[Video], clip_length: int, stride: int = 1, step: int = 1
) -> int:
    """Returns how many clips `clip_dataset` cuts from videos.

    Example:
    >>> count_clips(Video("a", "a.mp4", num_frames=10), clip_length=4)
    7
    """
    return len(Clips(standardize_videos(videos), clip_length, stride, step))


class Clips:
    """The clips of several videos, numbered in order; see `clip_dataset`."""

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
        # Frames from the first to the last of a clip, both included.
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


class _Frames:
    """The frames in a folder, decoded where they are looked up."""

    def __init__(
        self, video: Video, image_size: tuple[int, int], channels: int
    ) -> None:
        self._paths = frame_paths(video)
        size = frame_size(self._paths[0])
        self._arguments = image_size, channels, size, video.preprocessing

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        return np.stack(
            [read_frame(self._paths[p], *self._arguments) for p in positions]
        )
