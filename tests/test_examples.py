"""The examples in docstrings run, and no public name is without one."""

import doctest
import importlib
import inspect
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_sspcab

ROOT = Path(__file__).parents[1]

# These packages need TensorFlow, whatever the backend of Keras.
NEED_TENSORFLOW = (
    "keras_sspcab.applications",
    "keras_sspcab.cli",
    "keras_sspcab.compare",
    "keras_sspcab.data",
    "keras_sspcab.export",
    "keras_sspcab.hosts",
    "keras_sspcab.report",
    "keras_sspcab.runs",
    "keras_sspcab.scale",
    "keras_sspcab.training",
)


def modules():
    """The files of all modules by their names."""
    for folder in ("keras_sspcab", "applications", "export"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if parts[0] != "keras_sspcab":
                parts = ("keras_sspcab", *parts)
            if parts[-1] != "__main__":
                yield ".".join(parts).removesuffix(".__init__"), path


MODULES = dict(modules())


def import_here(name):
    """Imports a module, or skips the test where that is not possible."""
    if name.startswith(NEED_TENSORFLOW) and (
        keras.config.backend() != "tensorflow"
    ):
        pytest.skip("needs TensorFlow")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if (error.name or "keras_sspcab").startswith("keras_sspcab"):
            raise
        pytest.skip(f"needs {error.name}")


def public_names(module):
    return {
        name: getattr(module, name) for name in getattr(module, "__all__", ())
    }


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, tmp_path, monkeypatch):
    module = import_here(name)
    package = importlib.import_module(name.rpartition(".")[0] or name)
    names = {
        "keras": keras,
        "keras_sspcab": keras_sspcab,
        "np": np,
        "ops": keras.ops,
        **public_names(package),
        **vars(module),
    }
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    report = []
    for example in doctest.DocTestFinder().find(module, name, globs=names):
        runner.run(example, out=report.append)
    assert not runner.summarize(verbose=False).failed, "".join(report)


@pytest.mark.parametrize(
    "name", [n for n, path in MODULES.items() if "__all__" in path.read_text()]
)
def test_public_names_have_an_example(name):
    missing = [
        public
        for public, item in public_names(import_here(name)).items()
        if inspect.isclass(item) or inspect.isroutine(item)
        if ">>>" not in (item.__doc__ or "")
    ]
    assert not missing
