import h5py
import numpy as np
import pytest
from object_videos import HEIGHT, WIDTH, Given, draw_square, write_cubes
from video_writing import write_frames

from keras_sspcab.data import DISFlow
from keras_sspcab.data.objects import (
    MaskFiles,
    MotionMasks,
    MotionProposals,
    cube_dataset,
    extract_cubes,
)
from keras_sspcab.data.video import scan_video_folder

pytest.importorskip("cv2")

COUNT = 4
BOX = [2, 4, 17, 19, 1.0]


@pytest.fixture
def video(tmp_path):
    """A square that walks to the right."""
    frames = np.stack([draw_square(3 + 2 * i, 8) for i in range(COUNT)])
    write_frames(tmp_path / "videos/a", frames)
    (video,) = scan_video_folder(tmp_path / "videos", layout="plain").train
    return video


def masks_of_squares(values=1):
    masks = np.zeros((COUNT, HEIGHT, WIDTH), "uint8")
    for i in range(COUNT):
        masks[i, 8:14, 3 + 2 * i : 9 + 2 * i] = values
    return masks


def extract(video, folder, masks):
    (file,) = extract_cubes(
        [video],
        Given(*[[BOX]] * COUNT),
        DISFlow(),
        folder,
        num_frames=1,
        size=16,
        channels=1,
        masks=masks,
        progress=False,
    )
    return file


def expected():
    """The box is as large as the crop, so nothing is resized."""
    return masks_of_squares()[:, 4:20, 2:18, np.newaxis]


@pytest.mark.parametrize("kind", ["array", "images", "instances", "double"])
def test_masks_from_files(tmp_path, video, kind):
    folder = tmp_path / "masks"
    folder.mkdir()
    if kind == "array":
        np.save(folder / "a.npy", masks_of_squares())
    elif kind == "images":
        write_frames(folder / "a", masks_of_squares(255)[..., np.newaxis])
    elif kind == "instances":
        np.save(folder / "a.npy", masks_of_squares(7).astype("int32"))
    else:
        masks = masks_of_squares().repeat(2, axis=1).repeat(2, axis=2)
        np.save(folder / "a.npy", masks)
    file = extract(video, tmp_path / "cubes", MaskFiles(folder))
    assert file.has_masks
    np.testing.assert_array_equal(file.read("mask"), expected())
    (batch,) = cube_dataset(file, with_masks=True)
    np.testing.assert_array_equal(batch["mask"], expected())
    assert batch["mask"].dtype == "float32"
    assert "mask" not in next(iter(cube_dataset(file)))


def test_masks_belong_to_the_key_of_the_file(tmp_path, video):
    folder = tmp_path / "masks"
    folder.mkdir()
    np.save(folder / "a.npy", masks_of_squares())
    masks = MaskFiles(folder)
    one = extract(video, tmp_path / "cubes", masks)
    assert extract(video, tmp_path / "cubes", masks).path == one.path
    without = extract(video, tmp_path / "cubes", None)
    assert without.path != one.path
    assert not without.has_masks
    np.save(folder / "a.npy", masks_of_squares()[:, ::-1])
    other = extract(video, tmp_path / "cubes", masks)
    assert other.path != one.path
    with h5py.File(other.path) as file:
        assert file["mask"].shape == (COUNT, 16, 16, 1)


def test_what_moves_is_the_object(tmp_path, video):
    motion = MotionProposals(threshold=18, min_area=4)
    file = extract(video, tmp_path / "cubes", MotionMasks(motion))
    masks = file.read("mask")[..., 0].astype(bool)
    moved = np.stack(list(motion.masks(video)))[:, 4:20, 2:18] > 0
    np.testing.assert_array_equal(masks, moved)
    assert masks[1:].any(axis=(1, 2)).all()
    assert not masks.all()


def test_videos_without_masks_have_none(tmp_path, video):
    (tmp_path / "masks").mkdir()
    masks = MaskFiles(tmp_path / "masks")
    assert not masks.has(video)
    assert not extract(video, tmp_path / "cubes", masks).has_masks
    with pytest.raises(ValueError, match=r"no masks of the video 'a'.*a\.npy"):
        masks.files(video)


def test_masks_that_do_not_fit_are_refused(tmp_path, video):
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "masks/a.npy", masks_of_squares()[1:])
    with pytest.raises(ValueError, match="one mask a frame"):
        extract(video, tmp_path / "cubes", MaskFiles(tmp_path / "masks"))
    assert not list((tmp_path / "cubes").glob("*"))
    with pytest.raises(ValueError, match="does not exist"):
        MaskFiles(tmp_path / "nothing")


def test_masks_are_wanted_where_there_are_none(tmp_path):
    file, _ = write_cubes(tmp_path / "a.h5", [0, 1], 0, 1)
    with pytest.raises(ValueError, match=r"a\.h5.* without"):
        cube_dataset(file, with_masks=True)
