"""The package as it is installed: wheel, sdist, and several source trees."""

import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[1]
SHOW_HOMES = (
    "import keras_sspcab, keras_sspcab.applications as applications;"
    "import keras_sspcab.export as export;"
    "print(keras_sspcab.__file__, applications.__file__, export.__file__);"
    "applications.AutoEncoder()"
)


def run(*command, **options):
    result = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build(form, folder):
    pytest.importorskip("build")
    run(sys.executable, "-m", "build", f"--{form}", "--outdir", folder, ROOT)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build("wheel", tmp_path_factory.mktemp("wheel"))


def test_no_link_on_a_package_index_is_broken(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("/METADATA"))
        text = archive.read(name).decode()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) >= 1
    assert [link for link in links if not link.startswith("https://")] == []
    assert "Project-URL: Paper, https://arxiv.org" in text
    # Where links were, their texts are.
    assert "Thresholds and false alarms".lower() in text.lower()


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A new environment with the wheel; the dependencies come from here."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--no-deps", "--quiet", wheel)
    (site,) = (folder / "lib").glob("python*/site-packages")
    dependencies = Path(keras.__file__).parents[1]
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    return folder


def source_tree(path):
    """Copies what a clone holds of the package."""
    for name in ("keras_sspcab", "applications", "export"):
        shutil.copytree(
            ROOT / name,
            path / name,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    shutil.copy(ROOT / "pyproject.toml", path)
    return path


def test_wheel_holds_every_module(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    kinds = (".css", ".html", ".j2", ".js", ".py", ".typed")
    for source, target in (
        ("keras_sspcab", "keras_sspcab"),
        ("applications", "keras_sspcab/applications"),
        ("export", "keras_sspcab/export"),
    ):
        for path in (ROOT / source).rglob("*"):
            if path.suffix in kinds:
                relative = path.relative_to(ROOT / source).as_posix()
                assert f"{target}/{relative}" in names
    assert not [name for name in names if name.startswith("tests")]


def test_wheel_works_outside_of_a_source_tree(environment, tmp_path):
    python = environment / "bin" / "python"
    for line in run(python, "-c", SHOW_HOMES, cwd=tmp_path).split():
        assert line.startswith(str(environment)), line
    command = environment / "bin" / "keras-sspcab"
    assert "0.1.0" in run(command, "--version")


def test_source_tree_wins_over_an_installed_wheel(environment, tmp_path):
    tree = source_tree(tmp_path)
    python = environment / "bin" / "python"
    for line in run(python, "-c", SHOW_HOMES, cwd=tree).split():
        assert line.startswith(str(tree)), line


def test_source_trees_do_not_mix(tmp_path):
    """This environment has the package from this tree, in editable form."""
    tree = source_tree(tmp_path)
    for line in run(sys.executable, "-c", SHOW_HOMES, cwd=tree).split():
        assert line.startswith(str(tree)), line


def test_tests_run_from_an_sdist(tmp_path):
    path = build("sdist", tmp_path / "dist")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.glob("keras_sspcab-*")
    packed = {p.relative_to(tree) for p in (tree / "tests").rglob("*.py")}
    here = {p.relative_to(ROOT) for p in (ROOT / "tests").rglob("*.py")}
    assert packed == here
    assert (tree / "tests/fixtures/sequential.keras").is_file()
    output = run(sys.executable, "-m", "pytest", "tests/losses", "-q", cwd=tree)
    assert "passed" in output
    for line in run(sys.executable, "-c", SHOW_HOMES, cwd=tree).split():
        assert line.startswith(str(tree)), line
