import functools
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_sspcab.data import (
    BadFilesError,
    ImageSample,
    check_images,
    image_dataset,
    scan_image_folder,
)
from keras_sspcab.data.checking import measure_preprocessing
from keras_sspcab.data.decoding import _MAGIC
from keras_sspcab.preprocessing import Preprocessing


def problems_of(samples, **arguments):
    with pytest.raises(BadFilesError) as error:
        check_images(samples, **arguments)
    return error.value


def sample_of(path, content):
    path.write_bytes(content)
    return ImageSample(str(path))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


def test_all_bad_files_are_reported_with_reasons(tmp_path, color, encode):
    png = encode(color, "PNG")
    # Also in formats that no graph decodes, whatever their names are.
    good = [sample_of(tmp_path / "good.png", png)] + [
        sample_of(tmp_path / f"{kind}.png", encode(color, kind, mode))
        for kind, mode in (("WEBP", None), ("TIFF", None), ("BMP", "P"))
    ]
    (tmp_path / "folder.png").mkdir()
    bad = {
        "missing.png": (None, "does not exist"),
        "folder.png": (None, "a folder, not a file"),
        "empty.png": (b"", "the file is empty"),
        "text.png": (b"<html>not found</html>", "not an image"),
        "half.png": (png[: len(png) // 2], "broken or truncated PNG"),
        "half.jpg": (encode(color, "JPEG")[:-40], "truncated JPEG"),
        "half.bmp": (encode(color, "BMP")[:-1], "truncated BMP"),
        "half.gif": (encode(color, "GIF")[:-9], "truncated GIF"),
    }
    samples = [*good]
    for name, (content, _) in bad.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        samples.append(ImageSample(str(tmp_path / name)))
    error = problems_of(samples)
    assert [p.path for p in error.problems] == [s.path for s in samples[4:]]
    for problem, (_, reason) in zip(error.problems, bad.values(), strict=True):
        assert reason in problem.reason
        assert str(problem) in str(error)
    assert "8 bad files among 12 images" in str(error)
    assert 'on_error="skip"' in str(error)
    assert isinstance(error, ValueError)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.problems, str(copy)) == (error.problems, str(error))
    with pytest.warns(UserWarning, match="the file is empty") as caught:
        assert check_images(iter(samples), on_error="skip") == tuple(good)
    assert "4 images remain" in str(caught[0].message)
    with pytest.raises(ValueError, match="on_error='ignore'"):
        check_images(samples, on_error="ignore")
    # Nothing is left.
    assert len(problems_of(samples[4:], on_error="skip").problems) == 8


def test_paths_are_no_samples():
    for use in (check_images, functools.partial(image_dataset, image_size=32)):
        with pytest.raises(ValueError, match=r"ImageSample\(path\).*'a\.png'"):
            use(["a.png"])


def test_masks_are_checked_too(mvtec, write_image):
    masks = mvtec / "ground_truth/crack"
    write_image(masks / "000_mask.png", size=(10, 12))
    (masks / "001_mask.png").write_bytes(b"")
    test = scan_image_folder(mvtec).test
    error = problems_of(test)
    assert [p.path for p in error.problems] == [
        str(masks / "000_mask.png"),
        str(masks / "001_mask.png"),
    ]
    reason = error.problems[0].reason
    assert "mask of 10x12 pixels" in reason
    assert f"{mvtec / 'test/crack/000.png'} of 12x10" in reason
    with pytest.warns(UserWarning, match="2 bad files"):
        assert check_images(test, on_error="skip") == test[2:]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"])
@settings(max_examples=20)
@given(st.floats(0.0, 1.0))
def test_every_truncation_is_found(kind, encode, color, scratch, share):
    content = encode(color, kind)
    # The last byte of a GIF says only that it is the last one.
    whole = len(content) - (kind == "GIF")
    cut = min(int(share * whole), whole - 1)
    sample = sample_of(scratch / "a", content[:cut])
    assert len(problems_of([sample]).problems) == 1


@settings(max_examples=20)
@given(
    st.sampled_from([b"", *(m for ms in _MAGIC.values() for m in ms)]),
    st.binary(max_size=200),
)
def test_random_bytes_are_reported_and_never_crash(scratch, magic, content):
    sample = sample_of(scratch / "random", magic + content)
    (problem,) = problems_of([sample]).problems
    assert problem.reason


@settings(max_examples=25)
@given(st.data())
def test_damaged_files_never_crash(encode, color, scratch, data):
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "BMP", "GIF", "TIFF"]))
    content = bytearray(encode(color, kind))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    good = sample_of(scratch / "good.png", encode(color, "PNG"))
    damaged = sample_of(scratch / "damaged", bytes(content))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = check_images([good, damaged], on_error="skip")
    assert found[0] == good
    # Pillow may warn as well.
    told = ["bad files among" in str(warning.message) for warning in caught]
    assert len(found) + sum(told) == 2


def test_brighter_than_the_white_level_is_bad(tmp_path, write_image):
    samples = [
        ImageSample(write_image(tmp_path / name, np.full((3, 3), v, "uint16")))
        for name, v in (("a.png", 1000), ("b.png", 4000))
    ]
    preprocessing = measure_preprocessing(samples[:1])
    assert preprocessing == Preprocessing(1023)
    (problem,) = problems_of(samples, preprocessing=preprocessing).problems
    assert problem.path == samples[1].path
    assert "values up to 4000" in problem.reason
    assert measure_preprocessing(samples) == Preprocessing(4095)
    # Nothing is known of files with 8 bits, and of black ones.
    plain = ImageSample(write_image(tmp_path / "c.png"))
    black = write_image(tmp_path / "d.png", np.zeros((3, 3), "uint16"))
    black = ImageSample(black)
    assert measure_preprocessing([plain, black]) == Preprocessing()
    with pytest.raises(ValueError, match=r"image missing\.png: the file does"):
        measure_preprocessing([ImageSample("missing.png")])


def test_datasets_that_are_nearly_black_warn(tmp_path, write_image):
    wide = ImageSample(
        write_image(tmp_path / "a.png", np.full((3, 3), 3000, "uint16"))
    )
    with pytest.warns(UserWarning, match=r"a\.png .* none above 3000"):
        image_dataset([wide], 3)
    full = ImageSample(
        write_image(tmp_path / "b.png", np.full((3, 3), 60000, "uint16"))
    )
    plain = ImageSample(write_image(tmp_path / "c.png"))
    for sample in (full, plain, ImageSample("gone.png")):
        image_dataset([sample], 3)
    image_dataset([wide], 3, preprocessing=Preprocessing())
