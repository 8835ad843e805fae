"""Folders behind URLs that fsspec reads."""

import functools
import http.server
import shutil
import threading

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
from keras_sspcab.scale.plan import list_inputs

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


@pytest.fixture
def on_the_web(mvtec):
    """The URL of a folder whose server shows index pages."""
    pytest.importorskip("aiohttp")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Handler, directory=str(mvtec.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/{mvtec.name}"
    server.shutdown()
    thread.join()
    server.server_close()


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


def test_inputs_of_scores(in_memory):
    files = [f"{in_memory}/test/crack/{i:03d}.png" for i in range(3)]
    folder = f"{in_memory}/test/crack"
    for inputs in ([folder], [f"{folder}/*.png"], files, [folder, *files]):
        assert list_inputs(inputs) == files
    assert len(list_inputs([f"{in_memory}/test/**/*.png"])) == 6
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


def test_missing_plugins_are_named(monkeypatch):
    def fail(scheme):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", fail)
    file_system._refusal.cache_clear()
    message = r's3://.*Install s3fs to access S3\. .*"keras-sspcab\[io\]"'
    with pytest.raises(ValueError, match=message):
        scan_image_folder("s3://bucket/part")
