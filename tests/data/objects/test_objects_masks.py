import os

import numpy as np
import pytest
from object_videos import HEIGHT, WIDTH, Given, draw_square
from video_writing import write_frames

from keras_sspcab.data import DISFlow
from keras_sspcab.data.objects import (
    MaskFiles,
    MotionMasks,
    MotionProposals,
    cube_dataset,
    extract_cubes,
)

pytest.importorskip("cv2")

COUNT = 4
BOX = [2, 4, 17, 19, 1.0]


@pytest.fixture
def video(write):
    """A square that walks to the right."""
    return write([draw_square(3 + 2 * i, 8) for i in range(COUNT)], "a")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "masks").mkdir()
    return tmp_path / "masks"


def masks_of_squares(value=1):
    masks = np.zeros((COUNT, HEIGHT, WIDTH), "uint8")
    for i in range(COUNT):
        masks[i, 8:14, 3 + 2 * i : 9 + 2 * i] = value
    return masks


def extract(video, masks):
    (file,) = extract_cubes(
        [video],
        Given(*[[BOX]] * COUNT),
        DISFlow(),
        os.path.join(os.path.dirname(video.path), "cubes"),
        num_frames=1,
        size=16,
        channels=1,
        masks=masks,
    )
    return file


@pytest.mark.parametrize("kind", ["images", "instances of double size"])
def test_masks_from_files(folder, video, kind):
    if kind == "images":
        write_frames(folder / "a", masks_of_squares(255)[..., np.newaxis])
    else:
        masks = masks_of_squares(7).repeat(2, axis=1).repeat(2, axis=2)
        np.save(folder / "a.npy", masks.astype("int32"))
    file = extract(video, MaskFiles(folder))
    assert file.has_masks
    # The box is as large as the crop, so nothing is resized.
    expected = masks_of_squares()[:, 4:20, 2:18, np.newaxis]
    np.testing.assert_array_equal(file.read("mask"), expected)
    (batch,) = cube_dataset(file, with_masks=True)
    np.testing.assert_array_equal(batch["mask"], expected)
    assert batch["mask"].dtype == "float32"
    assert "mask" not in next(iter(cube_dataset(file)))


def test_masks_belong_to_the_key_of_the_file(folder, video):
    masks = MaskFiles(folder)
    assert not masks.has(video)
    without = extract(video, masks)
    assert not without.has_masks
    assert extract(video, None).path == without.path
    with pytest.raises(ValueError, match=r"no masks of the video 'a'.*a\.npy"):
        masks.files(video)
    with pytest.raises(ValueError, match=r"a-.*\.h5.* without"):
        cube_dataset(without, with_masks=True)
    paths = {without.path}
    for values in (masks_of_squares(), masks_of_squares()[:, ::-1]):
        np.save(folder / "a.npy", values)
        path = extract(video, masks).path
        assert extract(video, masks).path == path
        paths.add(path)
    assert len(paths) == 3
    np.save(folder / "a.npy", masks_of_squares()[1:])
    with pytest.raises(ValueError, match="one mask a frame"):
        extract(video, masks)
    with pytest.raises(ValueError, match="does not exist"):
        MaskFiles(folder / "nothing")


def test_what_moves_is_the_object(video):
    motion = MotionProposals(threshold=18, min_area=4)
    masks = extract(video, MotionMasks(motion)).read("mask")[..., 0] > 0
    moved = np.stack(list(motion.masks(video)))[:, 4:20, 2:18] > 0
    np.testing.assert_array_equal(masks, moved)
    assert masks[1:].any(axis=(1, 2)).all()
    assert not masks.all()
