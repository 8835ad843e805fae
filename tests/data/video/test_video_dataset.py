import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf
from video_writing import (
    CUT_PACKET,
    noise,
    numbered,
    truncate,
    write_frames,
    write_video,
)

from keras_sspcab.data import Preprocessing, clip_dataset, make_video
from keras_sspcab.data.video import clips, count_clips

SIZE = (12, 16)
COUNTS = (7, 5, 9)


@pytest.fixture
def contents():
    """Gray frames: value 2 t + 60 v at frame t of video v."""
    return [
        numbered(count, SIZE, first=60 * video)
        for video, count in enumerate(COUNTS)
    ]


@pytest.fixture
def folders(tmp_path, contents):
    return [
        make_video(write_frames(tmp_path / f"frames/{i}", frames, first=i))
        for i, frames in enumerate(contents)
    ]


@pytest.fixture
def files(tmp_path, contents):
    return [
        make_video(write_video(tmp_path / f"files/{i}.mkv", frames))
        for i, frames in enumerate(contents)
    ]


def make(videos, clip_length=3, **arguments):
    arguments = {"image_size": SIZE, "channels": 1, **arguments}
    return clip_dataset(videos, clip_length, **arguments)


def values(dataset):
    """The clips as lists of the values of their frames."""
    clips = np.concatenate([batch.numpy() for batch in dataset])
    assert clips.dtype == np.float32
    # Frames are even: each pixel has the value of its frame.
    assert np.ptp(clips, axis=(2, 3, 4)).max() == 0
    return np.round(clips[:, :, 0, 0, 0] * 255).astype(int).tolist()


def expected_values(length=3, stride=1, step=1):
    return [
        [60 * video + 2 * (start + stride * i) for i in range(length)]
        for video, count in enumerate(COUNTS)
        for start in range(0, count - (length - 1) * stride, step)
    ]


@pytest.mark.parametrize(
    ("kind", "cached", "length", "stride", "step"),
    [
        ("folders", False, 2, 3, 1),
        ("files", False, 3, 2, 2),
        ("folders", True, 3, 2, 2),
    ],
)
def test_every_clip_in_order(
    request, tmp_path, kind, cached, length, stride, step
):
    videos = request.getfixturevalue(kind)
    cache = str(tmp_path / "cache") if cached else False
    where = {"stride": stride, "step": step, "with_index": True}
    dataset = make(videos, length, batch_size=4, cache=cache, **where)
    expected = expected_values(length, stride, step)
    assert len(dataset) == -(-len(expected) // 4)
    assert count_clips(videos, length, stride, step) == len(expected)
    # A dataset can be iterated again.
    for _ in range(2):
        clips, origins = zip(*dataset, strict=True)
        assert values(clips) == expected
        assert {origin["video"].dtype for origin in origins} == {tf.int32}
        last = [60 * o["video"] + 2 * o["frame"] for o in origins]
        assert tf.concat(last, 0).numpy().tolist() == [c[-1] for c in expected]


def test_the_order_follows_from_seed_and_epoch(folders):
    def order(**arguments):
        return values(make(folders, shuffle=True, **arguments))

    second, third = order(seed=1, epoch=2), order(seed=1, epoch=3)
    assert sorted(second) == expected_values()
    # Clips of one video do not stay together.
    assert np.count_nonzero(np.diff([clip[0] // 60 for clip in second])) > 2
    assert order(seed=1, epoch=2, epochs=2) == second + third
    assert second != third
    assert order(seed=2, epoch=2) != second
    # Resumed within an epoch.
    dataset = make(folders, shuffle=True, seed=1, epoch=2, batch_size=2)
    assert values(dataset.skip(4)) == second[8:]


@pytest.mark.parametrize("shuffle", [False, True])
def test_shapes_and_numbers_of_batches(folders, shuffle):
    dataset = make(folders, shuffle=shuffle, batch_size=4, epochs=2)
    assert [len(batch) for batch in dataset] == [4, 4, 4, 3] * 2
    assert len(dataset) == 8
    assert dataset.element_spec.shape == (None, 3, *SIZE, 1)


def test_files_are_shuffled_with_a_cache_only(files, tmp_path):
    with pytest.raises(ValueError, match="only with a cache.*3 video files"):
        make(files, shuffle=True)
    clips = values(make(files, shuffle=True, cache=str(tmp_path / "cache")))
    assert sorted(clips) == expected_values()
    with pytest.raises(ValueError, match="cache=True. Give the path"):
        make(files, cache=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"videos": ["a.avi"]}, "at least one `Video`.*'a.avi'"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"channels": 2}, "`channels`"),
        ({"seed": -1}, "`seed`"),
        ({"step": 0}, "`step`"),
        ({"clip_length": 0}, "`clip_length`"),
        ({"clip_length": 6}, r"at least 6 .*: 1 \(5 frames\)"),
        ({"image_size": (0, 3)}, "`image_size`"),
    ],
)
def test_arguments_out_of_range(folders, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**{"videos": folders, **arguments})


def test_what_breaks_later_is_named(folders, tmp_path):
    dataset = make(folders, shuffle=True)
    (tmp_path / "frames/1/003.png").write_bytes(b"no image")
    with pytest.raises(tf.errors.InvalidArgumentError, match="1/003.png"):
        list(dataset)
    path = write_video(tmp_path / "a.avi", noise(40, (32, 48)))
    truncate(path, 0.6)
    message = f"a.avi' {CUT_PACKET}"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        list(make(make_video(path)))
    with pytest.raises(ValueError, match=message):
        keep([make_video(path)], tmp_path / "cache")
    assert os.listdir(tmp_path / "cache") == []


@pytest.mark.parametrize(("size", "channels"), [((12, 16), 1), ((8, 10), 3)])
def test_files_folders_and_caches_give_the_same_pixels(
    tmp_path, size, channels
):
    frames = noise(6, SIZE, channels)
    folder = make_video(write_frames(tmp_path / "a", frames))
    file = make_video(write_video(tmp_path / "a.mkv", frames))
    arguments = {"image_size": size, "channels": channels, "batch_size": 10}
    first, *others = (
        next(iter(make(video, 2, cache=cache, **arguments))).numpy()
        for cache in (False, str(tmp_path / "cache"))
        for video in (folder, file)
    )
    assert first.shape == (5, 2, *size, channels)
    if size == SIZE:
        expected = frames[:5].astype("float32") / 255
        np.testing.assert_allclose(first[:, 0], expected, atol=1e-6)
    for other in others:
        np.testing.assert_array_equal(other, first)


# === Caches ===


@pytest.fixture
def decoded(monkeypatch):
    """Names of the videos that are decoded."""
    names = []
    original = clips.iterate_frames

    def spy(video, *arguments):
        names.append(video.name)
        return original(video, *arguments)

    monkeypatch.setattr(clips, "iterate_frames", spy)
    return names


def keep(videos, folder, size=(12, 16), channels=1):
    return clips.cached_frames(videos, size, channels, str(folder))


def test_frames_are_decoded_once_unless_they_are_damaged(tmp_path, decoded):
    frames = noise(6), noise(4, seed=1)
    videos = [
        make_video(write_video(tmp_path / "a.mkv", frames[0])),
        make_video(write_frames(tmp_path / "b", frames[1])),
    ]
    folder = tmp_path / "new/cache"
    for names in (["a", "b"], ["a", "b"], ["a", "b", "b"]):
        if len(names) == 3:
            truncate(next(folder.glob("b-*")), 0.5)
        arrays = keep(videos, folder)
        for array, expected in zip(arrays, frames, strict=True):
            np.testing.assert_array_equal(array, expected)
            assert isinstance(array, np.memmap)
            assert not array.flags.writeable
        assert sorted(decoded) == names


def test_what_pixels_depend_on_is_kept_apart(tmp_path, decoded):
    folder, cache = write_frames(tmp_path / "v", noise(4)), tmp_path / "cache"
    video = make_video(folder)
    for size, channels in [((12, 16), 1), ((8, 8), 1), ((12, 16), 3)]:
        (array,) = keep([video], cache, size, channels)
        assert array.shape == (4, *size, channels)
    resized = [
        keep([dataclasses.replace(video, preprocessing=how)], cache, (8, 8))
        for how in (Preprocessing(), Preprocessing(resize="opencv"))
    ]
    assert len(decoded) == 4
    assert not np.array_equal(*resized)
    write_frames(folder, noise(4, seed=5))
    for path in folder.iterdir():
        os.utime(path, ns=(1, 1))
    (array,) = keep([video], cache)
    np.testing.assert_array_equal(array, noise(4, seed=5))
    assert len(decoded) == len(os.listdir(cache)) == 5
