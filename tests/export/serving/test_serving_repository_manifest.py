import os
import subprocess

import pytest

from keras_sspcab.export.serving.manifest import (
    MANIFEST_NAME,
    ManifestError,
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


def test_sha256sum_reads_it(version):
    verify_version(version)
    check = ["sha256sum", "--check", "--strict", "--quiet", MANIFEST_NAME]
    assert subprocess.run(check, cwd=version).returncode == 0
    with open(version / "saved_model.pb", "r+b") as file:
        file.write(b"G")
    assert subprocess.run(check, cwd=version).returncode == 1


def flip(version):
    with open(version / "saved_model.pb", "r+b") as file:
        file.seek(4321)
        file.write(b"X")


def truncate(version):
    (version / "saved_model.pb").write_bytes(b"")


def lose(version):
    (version / "variables" / "variables.index").unlink()


def add(version):
    (version / "variables" / "more").touch()


def link(version):
    os.symlink("..", version / "linked")


def rename(version):
    (version / "saved_model.pb").rename(version / "saved_model.pbtxt")


def forget(version):
    (version / MANIFEST_NAME).unlink()


def empty(version):
    (version / MANIFEST_NAME).write_bytes(b"")


def garble(version):
    (version / MANIFEST_NAME).write_bytes(b"\xff\xfe nonsense\n")


def escape(version):
    outside = version.parent / "outside"
    outside.write_bytes(b"")
    line = (version / MANIFEST_NAME).read_text().splitlines()[0]
    with open(version / MANIFEST_NAME, "a") as file:
        file.write(f"{line.split()[0]}  ../outside\n")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (flip, "saved_model.pb differs"),
        (truncate, "saved_model.pb differs"),
        (lose, "variables/variables.index is missing"),
        (add, "variables/more is extra"),
        (link, "linked is extra"),
        (rename, "saved_model.pb is missing; saved_model.pbtxt is extra"),
        (forget, "MANIFEST.sha256 is missing"),
        (empty, "MANIFEST.sha256 is empty"),
        (garble, "line 1 of MANIFEST.sha256 is no checksum"),
        (escape, "../outside is missing"),
    ],
)
def test_damage_is_named(version, damage, problem):
    damage(version)
    with pytest.raises(ManifestError) as caught:
        verify_version(version)
    assert problem in str(caught.value)
    assert str(version) in str(caught.value)
    assert caught.value.path == version


def test_long_lists_are_cut(version):
    for index in range(20):
        (version / f"file{index}").touch()
    with pytest.raises(ManifestError, match="and 15 more") as caught:
        verify_version(version)
    assert len(caught.value.problems) == 20


def test_a_linked_file_is_checked_by_its_content(version):
    file = version / "saved_model.pb"
    file.rename(version.parent / "elsewhere")
    file.symlink_to(version.parent / "elsewhere")
    verify_version(version)
    (version.parent / "elsewhere").write_bytes(b"other")
    with pytest.raises(ManifestError, match=r"saved_model\.pb differs"):
        verify_version(version)
