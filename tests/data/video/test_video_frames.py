import numpy as np
import pytest
from PIL import Image
from video_writing import noise, numbered, write_frames

from keras_sspcab.data import iterate_frames, make_video
from keras_sspcab.data.video.frames import list_frames, read_frame


def names(folder):
    return [path.rpartition("/")[2] for path in list_frames(str(folder))]


def touch(folder, *files):
    folder.mkdir(exist_ok=True)
    for file in files:
        (folder / file).touch()
    return folder


def test_numbers_are_sorted_by_value(tmp_path):
    touch(tmp_path, *(f"{i}.jpg" for i in range(9, 13)), ".hidden.jpg", "a.txt")
    assert names(tmp_path) == ["9.jpg", "10.jpg", "11.jpg", "12.jpg"]


@pytest.mark.parametrize(
    "files",
    [
        ["f_005.png", "f_010.png", "f_015.png"],
        # Moments in time, in milliseconds.
        ["1000.png", "1040.png", "1081.png", "1120.png"],
        ["start.png", "stop.png"],
        ["a1.png", "b7.png"],
        ["3.png"],
    ],
)
def test_what_is_no_gap(tmp_path, files):
    assert names(touch(tmp_path, *files)) == files


def test_missing_frames_are_named(tmp_path):
    touch(tmp_path, "001.tif", "002.tif", "005.tif", "006.tif")
    with pytest.raises(ValueError, match=r"from 001.tif to 006.tif, without 3"):
        list_frames(str(tmp_path))


def test_a_number_occurs_twice(tmp_path):
    touch(tmp_path, "001.png", "1.png", "2.png")
    with pytest.raises(ValueError, match="same number.*1.png"):
        list_frames(str(tmp_path))


def test_a_folder_without_frames(tmp_path):
    with pytest.raises(ValueError, match="holds no frames.*Accepted"):
        list_frames(str(touch(tmp_path, "notes.txt")))
    with pytest.raises(ValueError, match="Cannot read the folder"):
        list_frames(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("extension", ["png", "tif", "bmp", "webp"])
def test_formats(tmp_path, extension):
    frames = noise(3)
    if extension == "webp":
        frames = numbered(3, first=100)
    folder = write_frames(tmp_path / "v", frames, extension, first=1)
    read = list(iterate_frames(make_video(folder), channels=1))
    np.testing.assert_allclose(read, frames, atol=extension == "webp")
    color = np.stack(list(iterate_frames(make_video(folder))))
    np.testing.assert_allclose(
        color, np.repeat(frames, 3, -1), atol=extension == "webp"
    )


def test_of_16_bit_tiff_the_upper_8_bits_count(tmp_path):
    values = np.array([[0, 255, 256], [40000, 65279, 65535]], "uint16")
    Image.fromarray(values).save(tmp_path / "1.tif")
    read = read_frame(str(tmp_path / "1.tif"), channels=1)
    np.testing.assert_array_equal(read[..., 0], values >> 8)


def test_long_folders_keep_their_order(tmp_path):
    frames = numbered(60)
    folder = write_frames(tmp_path / "v", frames, digits=1)
    read = list(iterate_frames(make_video(folder), channels=1))
    np.testing.assert_array_equal(read, frames)


def test_stopping_early_leaves_no_thread(tmp_path):
    folder = write_frames(tmp_path / "v", numbered(30))
    frames = iterate_frames(make_video(folder), channels=1)
    assert next(frames).max() == 0
    frames.close()


def test_mixed_sizes_name_the_frame(tmp_path):
    folder = write_frames(tmp_path / "v", noise(3))
    write_frames(folder, noise(1, size=(10, 16)), first=3)
    with pytest.raises(ValueError, match=r"003.png' of 10x16 .*12x16"):
        list(iterate_frames(make_video(folder)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is empty"), (b"no image", "of 8 bytes"), (None, "of 60 bytes")],
)
def test_broken_frames_are_named(tmp_path, content, reason):
    folder = write_frames(tmp_path / "v", noise(3))
    broken = folder / "001.png"
    broken.write_bytes(broken.read_bytes()[:60] if content is None else content)
    with pytest.raises(ValueError, match=f"001.png' .*{reason}"):
        list(iterate_frames(make_video(folder)))


def test_another_number_of_frames_than_before(tmp_path):
    folder = write_frames(tmp_path / "v", noise(3))
    video = make_video(folder)
    write_frames(folder, noise(1), first=3)
    stated = type(video)("v", str(folder), "frames", num_frames=3)
    with pytest.raises(ValueError, match="must have 3 frames.*4"):
        iterate_frames(stated)
