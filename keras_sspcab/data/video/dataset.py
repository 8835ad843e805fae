"""Videos to batches of clips."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sspcab.data.decoding import standardize_channels, standardize_size
from keras_sspcab.data.video.batching import Batching
from keras_sspcab.data.video.cache import cached_frames
from keras_sspcab.data.video.clips import (
    Clips,
    clips_from_arrays,
    clips_from_folders,
)
from keras_sspcab.data.video.folder import Video, standardize_videos


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
    drop_remainder: bool = False,
    epochs: int = 1,
) -> tf.data.Dataset:
    """Makes batches of clips, float32 in [0, 1], channels last.

    In order, each video is decoded from its beginning to its end, in constant
    memory whatever its length, and nothing is kept on disk: so videos are
    scored. Shuffled, clips of all videos are mixed, and their order follows
    from `(seed, epoch)` alone: so models are trained, and training that is
    resumed sees the same batches. Video files are then decoded once into a
    `cache` folder, since going to single frames in them is slow; folders of
    frames do without, but each frame is decoded once for each clip that it is
    part of.

    Both give the same pixels: frames are resized and rounded to 8 bits, see
    `fit_frame`. TIFF frames need no other package.

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
        cache: A local folder for decoded frames, see `cached_frames`; False
            (the default) for none.
        with_index: Adds where clips come from.
        drop_remainder: True drops the last batch of an epoch if it is smaller.
        epochs: Epochs in the dataset, from `epoch` on. Defaults to 1.

    Returns:
        A `tf.data.Dataset` of clips `(batch, frames, height, width,
        channels)`, or of pairs of them and a dict of int32 `(batch,)`:
        `"video"`, position in `videos`, and `"frame"`, position of the clip's
        last frame in its video, both from 0.

    Raises:
        ValueError: If an argument is out of range, a video is too short or
            cannot be read, or video files are to be shuffled without a cache.
            Frames that turn out to be broken while the dataset is iterated
            raise `tf.errors.InvalidArgumentError`, whose message names file and
            frame.
        ImportError: If there are video files and PyAV is missing.

    Example:
    >>> videos = [Video("street", "street.mp4", num_frames=250)]
    >>> clip_dataset(videos, 5, (64, 64), batch_size=8).element_spec.shape
    TensorShape([None, 5, 64, 64, 3])
    """
    given = standardize_videos(videos)
    size = standardize_size(image_size)
    channels = standardize_channels(channels)
    batching = Batching(
        batch_size, shuffle, seed, epoch, epochs, drop_remainder
    )
    _require_cache(given, cache, shuffle)

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
        if arrays is None:
            read_clip = clips_from_folders(given, size, channels)
        else:
            read_clip = clips_from_arrays(arrays)

        def read(numbers: np.ndarray) -> Any:
            positions, frames = clips.locate(numbers)
            pairs = zip(positions, frames, strict=True)
            pixels = [read_clip(video, of_clip) for video, of_clip in pairs]
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


def _require_cache(
    videos: tuple[Video, ...], cache: Any, shuffle: bool
) -> None:
    if cache is True:
        raise ValueError(
            "Frames of videos are cached on disk only. Received: cache=True. "
            "Give the path of a folder."
        )
    files = [video.path for video in videos if video.kind == "file"]
    if shuffle and files and cache is False:
        raise ValueError(
            "Clips of video files can be shuffled only with a cache, as going "
            f"to single frames in them is slow. Received: {len(files)} video "
            f"files, such as {files[0]!r}, with shuffle=True, cache=False. "
            "Give a local folder: it takes height * width * channels bytes a "
            "frame."
        )
