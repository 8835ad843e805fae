"""Folders behind URLs that fsspec reads."""

import os
import shutil

import numpy as np
import pytest
from batching import assert_same, batches

from keras_sspcab.data import (
    ImageSample,
    check_images,
    file_system,
    scan_image_folder,
)
from keras_sspcab.data.masks import load_mask
from keras_sspcab.data.scanning import find_images
from keras_sspcab.scale.plan import list_inputs
from tests.web import QuietHandler, serving

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def in_memory(mvtec, write_image):
    """The URL of a small folder in the MVTec AD layout."""
    masks = mvtec / "ground_truth/crack"
    (masks / "001").mkdir()
    shutil.move(masks / "001_mask.png", masks / "001/000.png")
    system = fsspec.filesystem("memory")
    system.put(str(mvtec), "/bucket/part", recursive=True)
    yield "memory://bucket/part"
    system.rm("/bucket", recursive=True)


class Handler(QuietHandler):
    says_when = True

    def send_header(self, name, value):
        if name != "Last-Modified" or self.says_when:
            super().send_header(name, value)


@pytest.fixture
def on_the_web(mvtec):
    """The URL of a folder whose server shows index pages."""
    pytest.importorskip("aiohttp")
    with serving(mvtec.parent, Handler) as address:
        yield f"{address}/{mvtec.name}"


@pytest.fixture(params=["in_memory", "on_the_web"])
def remote(request):
    return request.getfixturevalue(request.param)


def names(samples, root):
    return [
        (s.path.removeprefix(root), s.label, s.mask_path is None)
        for s in samples
    ]


def test_scans_and_datasets_are_those_of_the_local_folder(
    remote, mvtec, tmp_path
):
    found, local = scan_image_folder(remote), scan_image_folder(mvtec)
    for split in ("train", "test"):
        assert names(found.splits[split], remote) == names(
            local.splits[split], str(mvtec)
        )
    assert check_images(found.test) == found.test
    for one, other in zip(found.test, local.test, strict=True):
        masks = [load_mask(sample, (12, 10))[0] for sample in (one, other)]
        np.testing.assert_array_equal(*masks)
    for caching in (False, True, tmp_path / "cache"):
        read, kept = (
            batches(folder.test, cache=caching) for folder in (found, local)
        )
        assert_same(read, kept)


def test_mistakes_are_named(remote):
    missing = f"{remote}/test/crack/9.png"
    with pytest.raises(ValueError, match=r"9\.png: the file does not exist"):
        check_images([ImageSample(missing)])
    with pytest.raises(ValueError, match="folder does not exist"):
        scan_image_folder(f"{remote}/nowhere")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        scan_image_folder(f"{remote}/train/good/000.png")
    content = file_system.describe_folder(f"{remote}/test")
    assert content == "the folders crack, good, hole"
    content = file_system.describe_folder(f"{remote}/test/crack")
    assert content == "3 files (3 .png)"


def test_inputs_of_scores(in_memory):
    files = [f"{in_memory}/test/crack/{i:03d}.png" for i in range(3)]
    folder = f"{in_memory}/test/crack"
    for inputs in ([folder], [f"{folder}/*.png"], files, [folder, *files]):
        assert list_inputs(inputs) == files
    assert len(list_inputs([f"{in_memory}/test/**/*.png"])) == 6
    # Folders that a pattern matches are no images.
    assert find_images(f"{in_memory}/test/*") == []
    with pytest.raises(ValueError, match="no file that matches"):
        list_inputs([f"{folder}/*.bmp"])


def test_queries_are_no_patterns():
    assert not file_system.has_pattern("https://host/a.png?key=1")
    assert file_system.has_pattern("https://host/*.png?key=1")
    assert file_system.has_pattern("s3://bucket/a?.png")


def test_changes_are_seen(in_memory):
    path = f"{in_memory}/train/good/000.png"
    before = file_system.identify(path)
    assert file_system.identify(path) == before
    fsspec.filesystem("memory").pipe(path, b"other")
    assert file_system.identify(path) != before


@pytest.mark.parametrize("says_when", [True, False])
def test_changed_images_on_the_web_are_read_again(
    on_the_web, mvtec, write_image, tmp_path, monkeypatch, says_when
):
    monkeypatch.setattr(Handler, "says_when", says_when)
    samples = scan_image_folder(on_the_web).train
    local = mvtec / "train/good/003.png"
    # As many bytes, at another time.
    content = local.read_bytes()
    identity = file_system.identify(samples[3].path)
    local.write_bytes(content[:-1] + b"?")
    os.utime(local, (1, 1))
    assert file_system.identify(samples[3].path) != identity
    local.write_bytes(content)
    for caching in (True, tmp_path / "cache"):
        write_image(local, np.full((12, 10), 7, "uint8"))
        os.utime(local, (2, 2))
        (before,) = batches(samples, cache=caching)
        write_image(local, np.full((12, 10), 9, "uint8"))
        os.utime(local, (3, 3))
        (after,) = batches(samples, cache=caching)
        np.testing.assert_allclose(before[3], 7 / 255)
        np.testing.assert_allclose(after[3], 9 / 255)
        np.testing.assert_array_equal(before[:3], after[:3])


def test_missing_plugins_are_named(monkeypatch):
    def fail(scheme):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", fail)
    file_system._refusal.cache_clear()
    message = r's3://.*Install s3fs to access S3\. .*"keras-sspcab\[io\]"'
    with pytest.raises(ValueError, match=message):
        scan_image_folder("s3://bucket/part")
