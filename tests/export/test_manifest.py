import os
import subprocess

import pytest

from keras_sspcab.export.manifest import (
    MANIFEST_NAME,
    verify_version,
    write_manifest,
)


@pytest.fixture
def version(tmp_path):
    folder = tmp_path / "1"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph" * 1000)
    (folder / "variables" / "variables.index").write_bytes(b"\0\n")
    (folder / "empty file.txt").touch()
    write_manifest(folder)
    return folder


def test_sha256sum_reads_the_manifest(version):
    verify_version(version)
    check = ["sha256sum", "--check", "--strict", "--quiet", MANIFEST_NAME]
    assert subprocess.run(check, cwd=version).returncode == 0
    (version / "saved_model.pb").write_bytes(b"Graph" * 1000)
    assert subprocess.run(check, cwd=version).returncode == 1


def flip(version):
    with open(version / "saved_model.pb", "r+b") as file:
        file.seek(4321)
        file.write(b"X")


def list_a_file_outside(version):
    (version.parent / "outside").write_bytes(b"")
    line = (version / MANIFEST_NAME).read_text().splitlines()[0]
    with open(version / MANIFEST_NAME, "a") as file:
        file.write(f"{line.split()[0]}  ../outside\n")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (flip, "saved_model.pb differs"),
        (
            lambda v: (v / "variables" / "variables.index").unlink(),
            "variables/variables.index is missing",
        ),
        (lambda v: os.symlink("..", v / "linked"), "linked is extra"),
        (
            lambda v: (v / "saved_model.pb").rename(v / "x"),
            "saved_model.pb is missing; x is extra",
        ),
        (
            lambda v: (v / MANIFEST_NAME).unlink(),
            "MANIFEST.sha256 is missing",
        ),
        (
            lambda v: (v / MANIFEST_NAME).write_bytes(b""),
            "MANIFEST.sha256 is empty",
        ),
        (
            lambda v: (v / MANIFEST_NAME).write_bytes(b"\xff\xfe nonsense\n"),
            "line 1 of MANIFEST.sha256 is no checksum",
        ),
        (list_a_file_outside, "../outside is missing"),
    ],
)
def test_damage_is_named(version, damage, problem):
    damage(version)
    with pytest.raises(ValueError, match="not what was packaged") as error:
        verify_version(version)
    assert problem in str(error.value)
    assert str(version) in str(error.value)


def test_long_lists_of_problems_are_cut(version):
    for index in range(20):
        (version / f"file{index}").touch()
    with pytest.raises(ValueError, match="file0 is extra.*and 15 more"):
        verify_version(version)


def test_a_linked_file_is_checked_by_its_content(version):
    file = version / "saved_model.pb"
    file.rename(version.parent / "elsewhere")
    file.symlink_to(version.parent / "elsewhere")
    verify_version(version)
    (version.parent / "elsewhere").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"saved_model\.pb differs"):
        verify_version(version)
