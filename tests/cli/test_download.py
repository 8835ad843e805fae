import hashlib
import types
import zipfile

import pytest
from typer.testing import CliRunner

from keras_sspcab.cli import app, download


@pytest.fixture
def archive(tmp_path):
    """An archive that lies where a download would be put; its options."""
    path = tmp_path / "my data" / "mvtec_anomaly_detection.tar.xz"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as written:
        written.writestr("screw/train/good/000.png", b"-")
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    out = ["--out", str(path.parent), "--sha256", checksum]
    return ["download", "mvtec-ad", "--category", "screw", *out]


def test_it_says_the_license_and_what_comes_next(archive, tmp_path, invoke):
    text = invoke(*archive, "--accept-license").output
    assert "License: CC BY-NC-SA 4.0" in text
    folder = tmp_path / "my data" / "screw"
    assert f"keras-sspcab train --data '{folder}'" in text
    assert (folder / "train/good/000.png").is_file()


def test_without_a_terminal_the_license_must_be_accepted(archive, invoke):
    text = invoke(*archive, code=2).output
    assert "License: CC BY-NC-SA 4.0" in text
    assert "Accept it with --accept-license" in text


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
def test_on_a_terminal_it_asks(archive, monkeypatch, tmp_path, answer, code):
    terminal = types.SimpleNamespace(isatty=lambda: True)
    sys = types.SimpleNamespace(stdin=terminal)
    monkeypatch.setattr(download, "sys", sys)
    result = CliRunner().invoke(app, archive, input=f"{answer}\n")
    assert result.exit_code == code, result.output
    assert "Do you accept it?" in result.output
    assert (tmp_path / "my data" / "screw").exists() == (answer == "y")


def test_errors_name_options(invoke):
    for arguments, text in (
        (("vsa",), "Did you mean 'visa'"),
        (("visa", "--category", "candel"), "--category must be one of"),
        (("avenue", "--category", "a"), "no categories"),
    ):
        assert text in invoke("download", *arguments, code=2).output
