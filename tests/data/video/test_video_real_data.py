"""Published data sets, where they lie beside the project."""

import numpy as np
import pytest

from keras_sspcab.data import (
    check_videos,
    clip_dataset,
    frame_labels,
    scan_video_folder,
    tracks_from_masks,
)
from tests.conftest import SHARED_DATA

pytestmark = pytest.mark.data


def scan(name):
    root = SHARED_DATA / name
    if not root.is_dir():
        pytest.skip(f"needs {name} beside the project")
    return scan_video_folder(root)


def test_ped2_has_the_published_numbers():
    folder = scan("ucsd_ped2")
    assert folder.layout == "shanghaitech"
    assert sum(video.num_frames for video in folder.train) == 2550
    labels = [frame_labels(video) for video in folder.test]
    assert sum(map(len, labels)) == 2010
    assert sum(map(np.sum, labels)) == 1648
    abnormal = [
        v.name for v, x in zip(folder.test, labels, strict=True) if x.all()
    ]
    assert abnormal == ["08", "09", "10", "11"]
    tracks = tracks_from_masks(folder.test[:1])
    frames = np.flatnonzero(labels[0])
    assert np.unique(tracks["frame"]).tolist() == frames.tolist()
    assert tracks["x_max"].max() < 360
    assert tracks["y_max"].max() < 240


def test_avenue_clips_are_scored_in_order():
    folder = scan("avenue_clips")
    assert folder.layout == "avenue"
    checked = check_videos(folder.test[1:])
    assert [video.num_frames for video in checked] == [76]
    assert frame_labels(checked[0]).sum() == 53
    data = clip_dataset(checked, 5, (36, 64), batch_size=16, with_index=True)
    last = np.concatenate([origin["frame"] for _, origin in data])
    assert last.tolist() == list(range(4, 76))
