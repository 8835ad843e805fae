"""Videos to batches of clips."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.epochs import (
    chain_epochs,
    order_of_epoch,
    state_length,
)
from keras_sspcab.data.decoding import standardize_channels, standardize_size
from keras_sspcab.data.video.cache import cached_frames
from keras_sspcab.data.video.clips import (
    ClipIndex,
    ClipPlan,
    ClipReader,
    clips_from_arrays,
    clips_from_folders,
    stream_clips,
)
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.reading import count_frames, standardize_videos

# Clips, positions of their videos and of their last frames.
_Batch = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


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
        shuffle: True to shuffle all clips, anew in every epoch.
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
    """
    given = standardize_videos(videos)
    plan = ClipPlan(clip_length, stride, step)
    size = standardize_size(image_size)
    channels = standardize_channels(channels)
    batch_size = standardize_int(batch_size, "batch_size", 1)
    seed = standardize_int(seed, "seed", 0)
    epoch = standardize_int(epoch, "epoch", 0)
    epochs = standardize_int(epochs, "epochs", 1)
    _require_cache(given, cache, shuffle)

    arrays = None
    if cache is not False:
        arrays = cached_frames(given, size, channels, cache)
        counts = [len(frames) for frames in arrays]
    else:
        counts = [count_frames(video) for video in given]
    plan.require_clips(given, counts)
    index = ClipIndex(counts, plan)

    shape = (clip_length, *size, channels)
    if arrays is None and not shuffle:
        batches = _streamed(given, counts, plan, size, channels)
        batches = batches.batch(batch_size, drop_remainder).repeat(epochs)
    else:
        if arrays is None:
            read = clips_from_folders(given, size, channels)
        else:
            read = clips_from_arrays(arrays)

        def batches_of(epoch: tf.Tensor) -> tf.data.Dataset:
            order = order_of_epoch(len(index), shuffle, seed, epoch)
            clips = tf.data.Dataset.from_tensor_slices(order)
            return clips.batch(batch_size, drop_remainder).map(
                lambda numbers: _gather(numbers, index, read),
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )

        batches = chain_epochs(batches_of, epoch, epochs)

    batches = state_length(
        batches, len(index), batch_size, drop_remainder, epochs
    )
    size_of_batch = batch_size if drop_remainder else None

    def finish(clips: Any, video: Any, frame: Any) -> Any:
        clips = tf.ensure_shape(clips, (size_of_batch, *shape))
        clips = tf.image.convert_image_dtype(clips, tf.float32)
        if not with_index:
            return clips
        origin = {"video": video, "frame": frame}
        return clips, {
            name: tf.ensure_shape(value, (size_of_batch,))
            for name, value in origin.items()
        }

    batches = batches.map(finish, tf.data.AUTOTUNE, deterministic=True)
    return batches.prefetch(tf.data.AUTOTUNE)


def _streamed(
    videos: tuple[Video, ...],
    counts: list[int],
    plan: ClipPlan,
    size: tuple[int, int],
    channels: int,
) -> tf.data.Dataset:
    def clips() -> Iterator[tuple[np.ndarray, int, int]]:
        return stream_clips(videos, counts, plan, size, channels)

    position = tf.TensorSpec((), tf.int32)
    clip = tf.TensorSpec((plan.length, *size, channels), tf.uint8)
    return tf.data.Dataset.from_generator(
        clips, output_signature=(clip, position, position)
    )


def _gather(numbers: tf.Tensor, index: ClipIndex, read: ClipReader) -> _Batch:
    """Reads the clips of the given numbers."""

    def gather(numbers: np.ndarray) -> tuple[np.ndarray, ...]:
        videos, frames = index.locate(numbers)
        clips = [
            read(video, of_clip)
            for video, of_clip in zip(videos, frames, strict=True)
        ]
        last = frames[:, -1]
        return np.stack(clips), videos.astype("int32"), last.astype("int32")

    types = (tf.uint8, tf.int32, tf.int32)
    return tuple(tf.numpy_function(gather, [numbers], types))


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
