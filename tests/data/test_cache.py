import gc
import os
import re
import weakref

import numpy as np
import pytest
from batching import SIZE, VARIANTS, assert_same, batches, make

from keras_sspcab.data import cache
from keras_sspcab.data.cache import clear_image_cache


def test_memory_cache_reads_files_once(textured, monkeypatch):
    reads = []
    original = cache.read_pixels
    monkeypatch.setattr(
        cache, "read_pixels", lambda *a: reads.append(a) or original(*a)
    )
    batches(textured, cache=True, shuffle=True)
    assert len(reads) == 7
    batches(textured, cache=True, shuffle=True, epoch=1, patch_size=3)
    assert len(reads) == 7
    clear_image_cache()
    batches(textured, cache=True)
    assert len(reads) == 14


def test_memory_has_a_limit_and_is_freed(textured):
    for side in range(3, 3 + 2 * cache._MEMORY_SLOTS):
        dataset = make(textured, image_size=(side, side), cache=True)
    assert len(cache._memory) == cache._MEMORY_SLOTS
    values = weakref.ref(next(reversed(cache._memory.values())))
    clear_image_cache()
    assert len(list(dataset)) == 1
    del dataset
    gc.collect()
    assert values() is None


@pytest.mark.parametrize("variant", VARIANTS[3:])
def test_caching_changes_nothing(textured, tmp_path, variant, monkeypatch):
    variant = {**variant, "epochs": 2}
    plain = batches(textured, **variant)
    for caching in (True, tmp_path / "deep/cache"):
        assert_same(plain, batches(textured, **variant, cache=caching))
    # What is on disk serves other runs.
    monkeypatch.setattr(cache, "read_pixels", lambda *_: pytest.fail("again"))
    assert_same(plain, batches(textured, **variant, cache=caching))
    assert len(os.listdir(caching)) == 1


@pytest.mark.parametrize("on_disk", [False, True])
def test_changed_files_are_read_again(textured, tmp_path, write_image, on_disk):
    caching = tmp_path / "cache" if on_disk else True
    before = batches(textured, cache=caching)
    path = textured[3].path
    write_image(path, np.zeros(SIZE, "uint8"))
    os.utime(path, ns=(1, 1))
    after = batches(textured, cache=caching)
    assert not after[0][3].any()
    np.testing.assert_array_equal(before[0][:3], after[0][:3])


def test_settings_have_their_own_cache(textured, tmp_path):
    for caching in (True, tmp_path / "cache"):
        assert batches(textured, cache=caching)[0].shape == (7, 12, 10, 1)
        small = batches(textured, cache=caching, image_size=(5, 4), channels=3)
        assert small[0].shape == (7, 5, 4, 3)
        part = batches(textured[2:5], cache=caching)
        assert_same(part, [batches(textured)[0][2:5]])


def test_cut_disk_cache_is_made_again(textured, tmp_path):
    folder = tmp_path / "cache"
    before = batches(textured, cache=folder)
    (entry,) = folder.iterdir()
    for content in (b"", entry.read_bytes()[:-1]):
        entry.write_bytes(content)
        assert_same(before, batches(textured, cache=folder))
    assert os.listdir(folder) == [entry.name]


def test_failing_cache_names_the_file_and_leaves_nothing(textured, tmp_path):
    with open(textured[4].path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
    for caching in (True, tmp_path / "cache"):
        with pytest.raises(ValueError, match=r"4\.png: broken or truncated"):
            make(textured, cache=caching)
    assert os.listdir(tmp_path / "cache") == []
    assert not cache._memory


@pytest.mark.parametrize("caching", ["memory://cache", 3, None, "", __file__])
def test_cache_must_be_a_local_folder(textured, caching):
    with pytest.raises(ValueError, match=f"cache={caching!r}"):
        make(textured, cache=caching)


# === Arrays of any kind ===


def test_paths_follow_from_files_and_settings(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"1")

    def path(files=(str(file),), **settings):
        return cache.cache_path("/c", "../my video", files, settings)

    first = path(size=3)
    assert re.fullmatch(r"/c/_my_video-[0-9a-f]{20}\.npy", first)
    assert first == path(size=3)
    others = [path(size=4)]
    file.write_bytes(b"12")
    others.append(path(size=3))
    assert len({first, *others}) == 3
    with pytest.raises(ValueError, match="Cannot read .*nowhere"):
        path([str(tmp_path / "nowhere")])
