import os

import numpy as np
import pytest
from video_writing import truncate, write_frames

from keras_sspcab.data import DISFlow, FlowFiles, cached_flows, make_video

pytest.importorskip("cv2")


class Counting(DISFlow):
    def __init__(self, preset="fast"):
        super().__init__(preset)
        self.calls = 0

    def estimate(self, previous, current):
        self.calls += 1
        return super().estimate(previous, current)


@pytest.fixture
def videos(tmp_path, moving):
    return [
        make_video(write_frames(tmp_path / "a", moving)),
        make_video(write_frames(tmp_path / "b", moving[::-1])),
    ]


def make(videos, flow, tmp_path, **arguments):
    return cached_flows(
        videos, flow, str(tmp_path / "cache"), progress=False, **arguments
    )


def test_flows_are_computed_once(tmp_path, videos):
    flow = Counting()
    for _ in range(2):
        arrays = make(videos, flow, tmp_path)
        assert flow.calls == 6
        for video, array in zip(videos, arrays, strict=True):
            assert array.dtype == np.float16
            assert isinstance(array, np.memmap)
            expected = np.stack(list(DISFlow("fast").iterate(video)))
            np.testing.assert_array_equal(array, expected.astype("float16"))


def test_settings_and_size_are_kept_apart(tmp_path, videos):
    first = make(videos[0], DISFlow("fast"), tmp_path)[0]
    other = make(videos[0], DISFlow("medium"), tmp_path)[0]
    small = make(videos[0], DISFlow("fast"), tmp_path, image_size=(32, 40))[0]
    assert (first != other).any()
    assert small.shape == (4, 32, 40, 2)
    assert len(os.listdir(tmp_path / "cache")) == 3


def test_a_damaged_cache_is_made_anew(tmp_path, videos):
    flow = Counting()
    before = np.array(make(videos[0], flow, tmp_path)[0])
    (path,) = (tmp_path / "cache").iterdir()
    truncate(path, 0.9)
    np.testing.assert_array_equal(make(videos[0], flow, tmp_path)[0], before)
    assert flow.calls == 6


def test_a_failure_leaves_nothing_behind(tmp_path, videos):
    class Failing(DISFlow):
        def estimate(self, previous, current):
            raise ValueError("no flow today")

    with pytest.raises(ValueError, match="no flow today"):
        make(videos, Failing(), tmp_path)
    assert os.listdir(tmp_path / "cache") == []


def test_flow_files_that_change_are_read_anew(tmp_path, videos):
    (tmp_path / "flows").mkdir()
    path = tmp_path / "flows/a.npy"
    for value in (1.0, 2.0, 1e6):
        np.save(path, np.full((4, 64, 80, 2), value))
        os.utime(path, ns=(int(value), int(value)))
        (flows,) = make(videos[0], FlowFiles(tmp_path / "flows"), tmp_path)
        # Half precision ends at 65504.
        assert np.unique(flows).tolist() == [min(value, 65504.0)]
