import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from video_writing import noise, numbered, truncate, write_frames, write_video

from keras_sspcab.data import Video, clip_dataset, make_video
from keras_sspcab.data.video import count_clips
from keras_sspcab.data.video.clips import Clips

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


@hypothesis.given(
    st.lists(st.integers(0, 9), min_size=1, max_size=5),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_clips_are_numbered_in_order(more, length, stride, step):
    span = (length - 1) * stride + 1
    videos = [Video("a", "a", num_frames=span + extra) for extra in more]
    expected = [
        (position, list(range(start, start + span, stride)))
        for position, extra in enumerate(more)
        for start in range(0, extra + 1, step)
    ]
    clips = Clips(videos, length, stride, step)
    assert len(clips) == len(expected)
    positions, frames = clips.locate(np.arange(len(clips)))
    pairs = zip(positions.tolist(), frames.tolist(), strict=True)
    assert list(pairs) == expected


@pytest.mark.parametrize(
    ("kind", "length", "stride", "step"),
    [("folders", 2, 3, 1), ("files", 3, 2, 2)],
)
def test_every_clip_in_order(request, kind, length, stride, step):
    videos = request.getfixturevalue(kind)
    dataset = make(videos, length, stride=stride, step=step, batch_size=4)
    expected = expected_values(length, stride, step)
    assert values(dataset) == expected
    assert len(dataset) == -(-len(expected) // 4)
    assert count_clips(videos, length, stride, step) == len(expected)
    # A dataset can be iterated again.
    assert values(dataset) == expected


@pytest.mark.parametrize("cached", [False, True])
def test_the_index_names_video_and_last_frame(folders, tmp_path, cached):
    cache = str(tmp_path / "cache") if cached else False
    dataset = make(
        folders, stride=2, step=2, with_index=True, batch_size=3, cache=cache
    )
    expected = iter(expected_values(3, 2, 2))
    for clips, origin in dataset:
        assert origin["video"].dtype == origin["frame"].dtype == tf.int32
        for clip, video, frame in zip(
            clips, origin["video"], origin["frame"], strict=True
        ):
            last = next(expected)[-1]
            assert round(float(clip[-1, 0, 0, 0]) * 255) == last
            assert 60 * int(video) + 2 * int(frame) == last
    assert next(expected, None) is None


@pytest.mark.parametrize(("size", "channels"), [((12, 16), 1), ((8, 10), 3)])
def test_files_folders_and_caches_give_the_same_pixels(
    tmp_path, size, channels
):
    frames = noise(6, SIZE, channels)
    folder = make_video(write_frames(tmp_path / "a", frames))
    file = make_video(write_video(tmp_path / "a.mkv", frames))
    cache = str(tmp_path / "cache")
    arguments = {"image_size": size, "channels": channels, "batch_size": 10}
    first, *others = (
        next(iter(make(video, 2, cache=cache, **arguments))).numpy()
        for video, cache in [
            (folder, False),
            (file, False),
            (folder, cache),
            (file, cache),
        ]
    )
    assert first.shape == (5, 2, *size, channels)
    if size == SIZE:
        expected = frames[:5].astype("float32") / 255
        np.testing.assert_allclose(first[:, 0], expected, atol=1e-6)
    for other in others:
        np.testing.assert_array_equal(other, first)


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
    for drop, size, sizes in ((False, None, [4, 4, 4, 3]), (True, 4, [4] * 3)):
        dataset = make(
            folders,
            shuffle=shuffle,
            batch_size=4,
            epochs=2,
            drop_remainder=drop,
        )
        assert [len(batch) for batch in dataset] == sizes * 2
        assert len(dataset) == 2 * len(sizes)
        assert dataset.element_spec.shape == (size, 3, *SIZE, 1)


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


@pytest.mark.parametrize("shuffle", [False, True])
def test_frames_that_break_later_are_named(folders, tmp_path, shuffle):
    dataset = make(folders, shuffle=shuffle)
    (tmp_path / "frames/1/003.png").write_bytes(b"no image")
    with pytest.raises(tf.errors.InvalidArgumentError, match="1/003.png"):
        list(dataset)


def test_files_that_break_off_are_named(tmp_path):
    path = write_video(tmp_path / "a.avi", noise(40, (32, 48)))
    truncate(path, 0.6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="a.avi' has 40"):
        list(make(make_video(path)))
