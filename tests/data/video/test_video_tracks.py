import numpy as np
import pytest

from keras_sspcab.data import Video, tracks_from_masks
from keras_sspcab.metrics import read_tracks, write_tracks


@pytest.fixture
def make(tmp_path):
    def make(masks, name="v"):
        path = tmp_path / f"{name}.npy"
        np.save(path, masks)
        return Video(name, name, "frames", len(masks), masks=str(path))

    return make


def rows(tracks):
    names = ("track", "frame", "x_min", "y_min", "x_max", "y_max")
    return np.stack([tracks[name] for name in names], 1).tolist()


def test_a_moving_box_and_another_one(make):
    masks = np.zeros((4, 10, 12), bool)
    for t in range(3):
        masks[t, 2:5, 1 + t : 4 + t] = True
    masks[2:, 8:10, 9:12] = True
    tracks = tracks_from_masks([make(masks)])
    assert rows(tracks) == [
        [0, 0, 1, 2, 3, 4],
        [0, 1, 2, 2, 4, 4],
        [0, 2, 3, 2, 5, 4],
        [1, 2, 9, 8, 11, 9],
        [1, 3, 9, 8, 11, 9],
    ]
    assert tracks["video"].tolist() == ["v"] * 5


def test_regions_that_merge_and_part_are_one_track(make):
    masks = np.zeros((3, 6, 10), bool)
    masks[0, 1, 1] = masks[0, 4, 8] = True
    masks[1, 1, 1:9] = masks[1, 1:5, 8] = True
    masks[2, 1, 2] = masks[2, 4, 8] = True
    assert rows(tracks_from_masks([make(masks)])) == [
        [0, 0, 1, 1, 8, 4],
        [0, 1, 1, 1, 8, 4],
        [0, 2, 2, 1, 8, 4],
    ]


def test_a_gap_of_a_frame_ends_a_track(make):
    masks = np.zeros((3, 4, 4), bool)
    masks[[0, 2], 1, 1] = True
    assert rows(tracks_from_masks([make(masks)])) == [
        [0, 0, 1, 1, 1, 1],
        [1, 2, 1, 1, 1, 1],
    ]


def test_small_regions_can_be_left_out(make):
    masks = np.zeros((1, 6, 6), bool)
    masks[0, 0, 0] = True
    masks[0, 3:5, 3:5] = True
    assert len(rows(tracks_from_masks([make(masks)]))) == 2
    assert rows(tracks_from_masks([make(masks)], min_area=2)) == [
        [0, 0, 3, 3, 4, 4]
    ]


def test_the_metrics_read_them_back(make, tmp_path):
    masks = np.zeros((2, 4, 4), bool)
    masks[:, 1, 1] = True
    normal = Video("normal", "normal", "frames", 2)
    videos = [make(masks, "a"), normal, make(masks[:, ::-1], "b")]
    tracks = tracks_from_masks(videos)
    write_tracks(tracks, tmp_path / "tracks")
    read = read_tracks(tmp_path / "tracks")
    assert read["video"].tolist() == ["a", "a", "b", "b"]
    assert rows(read) == rows(tracks)
    assert tracks_from_masks([normal])["frame"].size == 0
