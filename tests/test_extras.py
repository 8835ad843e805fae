"""What the extras install, on the platforms that people have."""

import itertools
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

PLATFORMS = {
    "PC with Linux": ("linux", "x86_64"),
    "Graviton or Jetson": ("linux", "aarch64"),
    "Apple silicon": ("darwin", "arm64"),
    "Mac with Intel": ("darwin", "x86_64"),
    "PC with Windows": ("win32", "AMD64"),
}
# Wheels that hold TensorFlow, and packages that require `tensorflow`.
TENSORFLOWS = {
    *("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-gpu"),
}
BRINGERS = {"tensorflow-serving-api", "tensorflow-serving-api-gpu", "tf-keras"}


def packages_of(extras, platform, python="3.12"):
    """The names of what some extras install, those they refer to included."""
    system, machine = PLATFORMS[platform]
    environment = {
        "sys_platform": system,
        "platform_machine": machine,
        "python_version": python,
    }
    found = set()
    for extra in extras:
        for text in EXTRAS[extra]:
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is not None and not marker.evaluate(environment):
                continue
            if requirement.name == PROJECT["name"]:
                found |= packages_of(requirement.extras, platform, python)
            else:
                found.add(requirement.name)
    return found


@pytest.mark.parametrize("platform", PLATFORMS)
def test_no_pair_of_extras_brings_two_tensorflows(platform):
    pairs = {*itertools.combinations(EXTRAS, 2)}
    assert len(pairs) > 30
    # One of these two is chosen.
    for pair in pairs - {("cpu", "gpu")}:
        packages = packages_of(pair, platform)
        count = len(packages & TENSORFLOWS)
        assert count == len({"cpu", "gpu"} & {*pair}), pair
        assert not packages & BRINGERS, pair


@pytest.mark.parametrize(
    ("platform", "name"),
    [
        ("PC with Linux", "tensorflow-cpu"),
        ("PC with Windows", "tensorflow-cpu"),
        ("Graviton or Jetson", "tensorflow"),
        ("Apple silicon", "tensorflow"),
        ("Mac with Intel", "tensorflow"),
    ],
)
def test_cpu_takes_the_tensorflow_that_has_wheels(platform, name):
    assert packages_of(["cpu"], platform) & TENSORFLOWS == {name}


def test_onnx_that_breaks_beside_older_tensorflows_is_left_out():
    (onnx,) = [
        r for r in map(Requirement, EXTRAS["export"]) if r.name == "onnx"
    ]
    assert "1.19.0" not in onnx.specifier
    assert "1.18.0" in onnx.specifier


def test_extras_that_documents_name_exist():
    named = set()
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for names in re.findall(
            r'pip install [^\n]*?\[([a-z,]+)\]"', path.read_text()
        ):
            named |= {*names.split(",")}
    assert "cpu" in named
    assert named <= EXTRAS.keys()
