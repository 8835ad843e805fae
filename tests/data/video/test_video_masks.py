import dataclasses

import numpy as np
import pytest
from PIL import Image
from scipy import io as scipy_io
from video_writing import noise, write_frames

from keras_sspcab.data import (
    Video,
    frame_labels,
    iterate_masks,
    make_video,
    tracks_from_masks,
)
from keras_sspcab.data.masks import resize_mask
from keras_sspcab.data.video import LabelSource
from keras_sspcab.metrics import read_tracks, write_tracks


@pytest.fixture
def masks():
    masks = np.zeros((5, 12, 16), bool)
    masks[1, 3:5, 4:9] = True
    # One pixel is enough.
    masks[3, 11, 15] = True
    return masks


@pytest.fixture
def video(tmp_path):
    return make_video(write_frames(tmp_path / "v", noise(5)))


def save(path, masks):
    """Writes masks as what the ending of the path says."""
    if path.suffix == ".npy":
        np.save(path, masks.astype("uint8"))
    elif path.suffix == ".mat":
        cell = np.empty((1, len(masks)), object)
        for t, mask in enumerate(masks):
            cell[0, t] = mask.astype("uint8")
        scipy_io.savemat(path, {"volLabel": cell})
    else:
        # Numbers may begin elsewhere than those of the frames.
        pixels = masks[..., None].astype("uint8") * 255
        write_frames(path, pixels, "bmp", first=1)
    return str(path)


@pytest.mark.parametrize("name", ["m.npy", "m.mat", "v_gt"])
def test_masks_of_each_kind(tmp_path, video, masks, name):
    path = save(tmp_path / name, masks)
    masked = dataclasses.replace(video, masks=path)
    read = list(iterate_masks(masked))
    assert all(mask.dtype == bool for mask in read)
    np.testing.assert_array_equal(read, masks)
    labels = frame_labels(masked)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [0, 1, 0, 1, 0]
    path = save(tmp_path / f"short_{name}", masks[:4])
    masked = dataclasses.replace(video, masks=path)
    with pytest.raises(ValueError, match="4 in .* the 5 frames of .*v'"):
        list(iterate_masks(masked))


@pytest.mark.parametrize("size", [(24, 48), (7, 11)])
def test_resizing_is_that_of_images(tmp_path, video, size):
    masks = noise(5)[..., 0] > 127
    video = dataclasses.replace(video, masks=save(tmp_path / "m.npy", masks))
    for mask, resized in zip(masks, iterate_masks(video, size), strict=True):
        np.testing.assert_array_equal(resized, resize_mask(mask, size)[0])


def test_labels_come_before_masks(tmp_path, video, masks):
    with pytest.raises(ValueError, match="no ground truth.*'v'"):
        frame_labels(video)
    np.save(tmp_path / "labels.npy", [1, 1, 1, 0, 0])
    video = dataclasses.replace(
        video,
        masks=save(tmp_path / "m.npy", masks),
        labels=LabelSource(str(tmp_path / "labels.npy")),
    )
    assert frame_labels(video).tolist() == [1, 1, 1, 0, 0]


def test_masks_that_do_not_fit(tmp_path, video, masks):
    def read(path):
        return list(iterate_masks(dataclasses.replace(video, masks=str(path))))

    folder = tmp_path / "v_gt"
    save(folder, masks)
    write_frames(folder, noise(1, (5, 5)), "bmp", first=4)
    with pytest.raises(ValueError, match=r"mask 3 of shape \(5, 5\)"):
        read(folder)
    np.save(tmp_path / "m.npy", np.zeros(5))
    scipy_io.savemat(tmp_path / "m.mat", {"other": 1})
    struct = np.full((1, 5), {"a": 1}, object)
    scipy_io.savemat(tmp_path / "n.mat", {"volLabel": struct})
    np.save(tmp_path / "n.npy", np.full((5, 4, 4), np.nan))
    for name in ("m.npy", "m.mat", "m.avi", "n.mat", "n.npy"):
        with pytest.raises(ValueError, match=f"Masks must be .*{name}"):
            read(tmp_path / name)


def test_image_files_are_read_as_masks_of_images(tmp_path, video, masks):
    folder = tmp_path / "v_gt"
    folder.mkdir()
    for t, mask in enumerate(masks):
        # Identity 1 in 16 bits.
        Image.fromarray(mask.astype("uint16")).save(folder / f"{t}.png")
    masked = dataclasses.replace(video, masks=str(folder))
    np.testing.assert_array_equal(list(iterate_masks(masked)), masks)
    (folder / "3.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"mask '.*3\.png': not an image"):
        list(iterate_masks(masked))


# === Tracks ===


@pytest.fixture
def make(tmp_path):
    def make(masks, name="v"):
        path = save(tmp_path / f"{name}.npy", masks)
        return Video(name, name, "frames", len(masks), masks=path)

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


def test_gaps_end_tracks(make, tmp_path):
    masks = np.zeros((3, 4, 4), bool)
    masks[[0, 2], 1, 1] = True
    masks[2, 1, 2] = True
    first, second = [0, 0, 1, 1, 1, 1], [1, 2, 1, 1, 2, 1]
    normal = Video("normal", "normal", "frames", 2)
    tracks = tracks_from_masks([make(masks, "a"), normal, make(masks, "b")])
    assert rows(tracks) == [first, second] * 2
    # The metrics read them back.
    write_tracks(tracks, tmp_path / "tracks")
    read = read_tracks(tmp_path / "tracks")
    assert read["video"].tolist() == ["a", "a", "b", "b"]
    assert rows(read) == rows(tracks)
