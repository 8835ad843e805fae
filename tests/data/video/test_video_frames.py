import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from video_writing import noise, numbered, write_frames

from keras_sspcab.data import (
    Preprocessing,
    Video,
    decode_image,
    iterate_frames,
    make_video,
)
from keras_sspcab.data.image_files import read_pixels
from keras_sspcab.data.video import fit_frame
from keras_sspcab.data.video.frames import list_frames, read_frame
from keras_sspcab.data.video.reading import measure_white


def names(folder):
    return [path.rpartition("/")[2] for path in list_frames(str(folder))]


def touch(folder, *files):
    for file in files:
        (folder / file).touch()


# === Pixels ===


def test_colors_become_gray_as_those_of_images_do(tmp_path):
    frame = noise(1, (31, 50), 3)[0]
    expected = decode_image(tf.io.encode_png(frame), channels=1).numpy()
    assert np.abs(fit_frame(frame, None, 1).astype(int) - expected).max() <= 1
    image = Image.fromarray(frame).convert("RGBA")
    np.testing.assert_array_equal(fit_frame(image, None, 3), frame)
    palette = Image.fromarray(frame[..., 0]).convert("P")
    gray = fit_frame(palette, None, 1)
    np.testing.assert_array_equal(gray, frame[..., :1])


@pytest.mark.parametrize("name", ["1.tif", "1.png"])
def test_the_upper_bits_below_the_white_level_count(tmp_path, name):
    path = str(tmp_path / name)
    values = np.array([[0, 255, 256], [4000, 4094, 4095]], "uint16")
    for white_level, shift in ((4095, 4), (65535, 8)):
        pixels = values << (shift - 4)
        Image.fromarray(pixels).save(path)
        how = Preprocessing(white_level)
        read = read_frame(path, channels=1, preprocessing=how)
        np.testing.assert_array_equal(read[..., 0], pixels >> shift)
    Image.fromarray(values + 1).save(path)
    with pytest.raises(ValueError, match="0 to 4095, the white.* 1 to 4096"):
        read_frame(path, preprocessing=Preprocessing(4095))


@pytest.mark.parametrize("stored", [2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_colors_with_16_bits_are_read_as_those_of_images(
    tmp_path, stored, channels
):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4096, (8, 12, stored), "uint16")
    values[0, 0] = 4095
    if stored in (2, 4):
        values[..., -1] = 65535
    path = tmp_path / "1.png"
    path.write_bytes(tf.io.encode_png(values).numpy())
    video = make_video(tmp_path)
    measured = measure_white([video])
    assert measured == Preprocessing(4095)
    video = dataclasses.replace(video, preprocessing=measured)
    (frame,) = iterate_frames(video, None, channels)
    image = read_pixels(str(path), channels, measured, tf.uint8)
    np.testing.assert_array_equal(frame, image)
    if stored < 3:
        np.testing.assert_array_equal(frame[..., 0], values[..., 0] >> 4)
    elif channels == 3:
        np.testing.assert_array_equal(frame, values[..., :3] >> 4)
    with pytest.raises(ValueError, match="1.png' .* white level .*1023"):
        read_frame(str(path), preprocessing=Preprocessing(1023))
    with (
        Image.open(path) as opened,
        pytest.raises(ValueError, match="16 bits must be gray.*a PNG"),
    ):
        fit_frame(opened, None, channels)


@pytest.mark.parametrize("kind", ["colors", "reversed"])
def test_tiff_files_that_images_refuse_are_no_frames(tmp_path, kind):
    path = tmp_path / "1.tif"
    if kind == "colors":
        tifffile = pytest.importorskip("tifffile")
        pixels = np.full((4, 4, 3), 4095, "uint16")
        tifffile.imwrite(path, pixels, photometric="rgb")
    else:
        pixels = np.zeros((4, 4), "uint16")
        Image.fromarray(pixels).save(path, tiffinfo={262: 0})
    with pytest.raises(ValueError, match="1.tif' .*16 bits must be gray"):
        read_frame(str(path))


def test_frames_are_turned_as_cameras_say(tmp_path):
    frame = noise(1, (8, 12), 3)[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(frame).save(tmp_path / "1.png", exif=exif)
    expected = np.rot90(frame, -1)
    (read,) = iterate_frames(make_video(tmp_path))
    np.testing.assert_array_equal(read, expected)
    with Image.open(tmp_path / "1.png") as image:
        np.testing.assert_array_equal(fit_frame(image, None, 3), expected)


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4), "float32"),
        np.full((4, 4, 3), np.nan),
        np.zeros((4, 4), "uint16"),
        np.zeros((4, 4, 2), "uint8"),
        np.zeros((1, 4, 4, 3), "uint8"),
        np.zeros((0, 4), "uint8"),
        Image.new("F", (4, 4)),
        None,
    ],
)
def test_what_is_no_frame_is_refused(frame):
    with pytest.raises(ValueError, match="Received: "):
        fit_frame(frame, (2, 2), 3)


# === Order ===


@pytest.mark.parametrize(
    "files",
    [
        ["9.jpg", "10.jpg", "11.jpg"],
        ["f_005.png", "f_010.png", "f_015.png"],
        # Moments in time, in milliseconds.
        ["1000.png", "1040.png", "1081.png", "1120.png"],
        # In seconds, as programs write them.
        ["0.0.png", "0.04.png", "0.08.png", "0.1.png", "0.12.png", "1.0.png"],
        ["f_0.05.png", "f_0.1.png", "f_0.15.png", "f_0.2.png", "f_0.25.png"],
        ["8.5.png", "9.png", "9.5.png", "10.png", "10.5.png"],
        ["9.25.png", "9.5.png", "9.75.png", "10.0.png"],
        # Shots and frames.
        ["1.8.png", "1.9.png", "1.10.png", "1.11.png", "2.1.png"],
        ["²1.png", "²2.png"],
        ["start.png", "stop.png"],
        ["a1.png", "b7.png"],
    ],
)
def test_frames_in_their_order(tmp_path, files):
    touch(tmp_path, *files[::-1], ".hidden.jpg", "a.txt")
    assert names(tmp_path) == files


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["1.tif", "2.tif", "5.tif"], "from 1.tif to 5.tif, without 3, 4"),
        # Dates as numbers: 70 million are between these.
        (
            ["20240131235900.png", "20240131235901.png", "20240201000000.png"],
            "without 20240131235902, .*235911 and 69764088 more",
        ),
        (["001.png", "1.png", "2.png"], "same number.*1.png"),
        (["2.8.png", "2.9.png", "2.11.png"], "fixed number of decimals.*2.11"),
        (["notes.txt"], "holds no frames.*Accepted"),
    ],
)
def test_what_is_no_sequence_of_frames(tmp_path, files, message):
    touch(tmp_path, *files)
    with pytest.raises(ValueError, match=message):
        list_frames(str(tmp_path))
    with pytest.raises(ValueError, match="Cannot read the folder"):
        list_frames(str(tmp_path / "nowhere"))


# === Reading ===


@pytest.mark.parametrize("extension", ["png", "tif", "bmp", "webp"])
def test_formats_keep_their_order_and_can_be_left(tmp_path, extension):
    is_lossy = extension == "webp"
    frames = numbered(20, first=100)
    folder = write_frames(tmp_path / "v", frames, extension, digits=1)
    for channels in (1, 3):
        read = list(iterate_frames(make_video(folder), channels=channels))
        expected = np.repeat(frames, channels, -1)
        np.testing.assert_allclose(read, expected, atol=is_lossy)
    early = iterate_frames(make_video(folder))
    next(early)
    early.close()


def test_bad_frames_are_named(tmp_path):
    folder = write_frames(tmp_path / "v", noise(3))
    write_frames(folder, noise(1, size=(10, 16)), first=3)
    with pytest.raises(ValueError, match=r"003.png' of 10x16 .*12x16"):
        list(iterate_frames(make_video(folder)))
    broken = folder / "001.png"
    for length, reason in ((60, "of 60 bytes"), (0, "is empty")):
        broken.write_bytes(broken.read_bytes()[:length])
        with pytest.raises(ValueError, match=f"001.png' .*{reason}"):
            list(iterate_frames(make_video(folder)))
    stated = Video("v", str(folder), "frames", num_frames=3)
    with pytest.raises(ValueError, match="must have 3 frames.*4"):
        iterate_frames(stated)
