"""The package as a whole: what it exports, and what it must not import."""

import inspect
import subprocess
import sys

import keras
import pytest

import keras_sspcab
import keras_sspcab.applications
import keras_sspcab.backbones
import keras_sspcab.layers
import keras_sspcab.scoring

PUBLIC_MODULES = (
    keras_sspcab,
    keras_sspcab.applications,
    keras_sspcab.backbones,
    keras_sspcab.layers,
    keras_sspcab.scoring,
)
# Bases of hosts: no file holds one of them.
ABSTRACT = ("AnomalyModel", "FeatureModel", "ObjectModel")


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_public_names_exist_and_are_documented(module):
    for name in module.__all__:
        item = getattr(module, name)
        if callable(item):
            assert inspect.getdoc(item), name


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_layers_and_models_are_registered(module):
    for name in module.__all__:
        item = getattr(module, name)
        if inspect.isclass(item) and issubclass(item, keras.layers.Layer):
            if name in ABSTRACT:
                continue
            assert keras.saving.get_registered_name(item) == (
                f"keras_sspcab>{name}"
            )


def test_layers_do_not_need_tensorflow():
    script = (
        "import sys, os;"
        "os.environ['KERAS_BACKEND'] = 'jax';"
        "sys.modules['tensorflow'] = None;"
        "import keras_sspcab, keras_sspcab.applications as applications;"
        "model = applications.AutoEncoder(input_shape=(8, 8, 1));"
        "import numpy; model(numpy.ones((1, 8, 8, 1)));"
        "print(sorted({'typer', 'skimage'} & set(sys.modules)))"
    )
    pytest.importorskip("jax")
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"
