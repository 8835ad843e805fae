import os
import platform

import pytest

from keras_sspcab.export.artifacts import staging_path


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries keep nothing"
)
def test_memory_of_an_export_goes_back_to_the_system(tmp_path):
    with staging_path(tmp_path / "file"):
        # Small enough for the heap, each second of them still in use.
        blocks = [b"x" * 100_000 for _ in range(2000)]
        kept = blocks[::2]
        del blocks
        before = resident_bytes()
    assert before - resident_bytes() > 50_000_000
    assert len(kept) == 1000
