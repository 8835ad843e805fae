import dataclasses

import numpy as np
import pytest
from scipy import io as scipy_io
from video_writing import noise, write_frames

from keras_sspcab.data import (
    Video,
    frame_labels,
    iterate_masks,
    make_video,
    resize_mask,
)
from keras_sspcab.data.video.folder import LabelSource


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
    video = dataclasses.replace(video, masks=path)
    read = list(iterate_masks(video))
    assert all(mask.dtype == bool for mask in read)
    np.testing.assert_array_equal(read, masks)
    labels = frame_labels(video)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("size", [(6, 8), (24, 48), (7, 11)])
def test_resizing_is_that_of_images(tmp_path, video, size):
    masks = noise(5)[..., 0] > 127
    video = dataclasses.replace(video, masks=save(tmp_path / "m.npy", masks))
    for mask, resized in zip(masks, iterate_masks(video, size), strict=True):
        np.testing.assert_array_equal(resized, resize_mask(mask, size))


@pytest.mark.parametrize("name", ["m.npy", "m.mat", "v_gt"])
def test_another_number_of_masks(tmp_path, video, masks, name):
    path = save(tmp_path / name, masks[:4])
    video = dataclasses.replace(video, masks=path)
    with pytest.raises(ValueError, match="4 masks in .* the 5 frames of .*v'"):
        list(iterate_masks(video))


def test_labels_come_before_masks(tmp_path, video, masks):
    np.save(tmp_path / "labels.npy", [1, 1, 1, 0, 0])
    video = dataclasses.replace(
        video,
        masks=save(tmp_path / "m.npy", masks),
        labels=LabelSource(str(tmp_path / "labels.npy")),
    )
    assert frame_labels(video).tolist() == [1, 1, 1, 0, 0]


def test_without_ground_truth(video):
    assert not video.has_ground_truth
    with pytest.raises(ValueError, match="no ground truth.*'v'"):
        frame_labels(video)
    with pytest.raises(ValueError, match="'v' has no masks"):
        list(iterate_masks(video))


def test_masks_that_do_not_fit(tmp_path, video, masks):
    def read(path):
        return list(iterate_masks(dataclasses.replace(video, masks=str(path))))

    folder = tmp_path / "v_gt"
    save(folder, masks)
    write_frames(folder, noise(1, (5, 5)), "bmp", first=4)
    with pytest.raises(ValueError, match=r"mask 3 of shape \(5, 5\)"):
        read(folder)
    (folder / "002.bmp").unlink()
    with pytest.raises(ValueError, match="missing.*without 2"):
        read(folder)
    np.save(tmp_path / "m.npy", np.zeros(5))
    with pytest.raises(ValueError, match=r"\(frames, height, width\)"):
        read(tmp_path / "m.npy")
    scipy_io.savemat(tmp_path / "m.mat", {"other": 1})
    with pytest.raises(ValueError, match="volLabel"):
        read(tmp_path / "m.mat")
    with pytest.raises(ValueError, match=r"Cannot read .*gone.npy"):
        read(tmp_path / "gone.npy")
    with pytest.raises(ValueError, match="folder of images"):
        read(tmp_path / "m.avi")


def test_kinds_of_videos():
    with pytest.raises(ValueError, match="`kind` argument.*'files'"):
        Video("a", "a", "files")
