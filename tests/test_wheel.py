"""The wheel installs all three parts and works outside of the repository."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_wheel_holds_every_module(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for source, target in (
        ("keras_sspcab", "keras_sspcab"),
        ("applications", "keras_sspcab/applications"),
        ("export", "keras_sspcab/export"),
    ):
        for path in (ROOT / source).rglob("*"):
            if path.suffix in (
                ".css",
                ".html",
                ".j2",
                ".js",
                ".py",
                ".typed",
            ):
                relative = path.relative_to(ROOT / source).as_posix()
                assert f"{target}/{relative}" in names
    assert not [name for name in names if name.startswith("tests")]


@pytest.mark.slow
def test_wheel_works_in_a_clean_environment(wheel, tmp_path):
    # The dependencies come from this environment: only the package is new.
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--no-deps", "--quiet", wheel],
        check=True,
    )
    site = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    import keras

    dependencies = Path(keras.__file__).parents[1]
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    script = (
        "import keras_sspcab, keras_sspcab.applications as applications;"
        "import keras_sspcab.export as export;"
        "print(keras_sspcab.__file__); print(applications.__file__);"
        "print(export.__file__);"
        "applications.AutoEncoder()"
    )
    result = subprocess.run(
        [python, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    for line in result.stdout.split():
        assert line.startswith(str(site)), line
    command = tmp_path / "env" / "bin" / "keras-sspcab"
    result = subprocess.run(
        [command, "--version"], capture_output=True, text=True, check=True
    )
    assert "0.1.0" in result.stdout
