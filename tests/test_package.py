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
from tests.scripts import run_script

PUBLIC_MODULES = (
    keras_sspcab,
    keras_sspcab.applications,
    keras_sspcab.backbones,
    keras_sspcab.layers,
    keras_sspcab.scoring,
)
# Bases of hosts and stages of their training: no file holds one of them.
ABSTRACT = ("AnomalyModel", "FeatureModel", "ObjectModel", "Stage")


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
    pytest.importorskip("jax")
    script = (
        "import sys, os;"
        "os.environ['KERAS_BACKEND'] = 'jax';"
        "sys.modules['tensorflow'] = None;"
        "import keras_sspcab, keras_sspcab.applications as applications;"
        "model = applications.AutoEncoder(input_shape=(8, 8, 1));"
        "import numpy; model(numpy.ones((1, 8, 8, 1)));"
        "print(sorted({'typer', 'skimage'} & set(sys.modules)))"
    )
    assert run_script(script) == "[]"


def test_layers_need_few_packages():
    """Those that the wheel requires, and a backend."""
    others = ["sklearn", "PIL", "matplotlib", "pydantic", "typer"]
    if keras.config.backend() != "jax":
        # Which needs it itself.
        others.append("scipy")
    run_script(
        f"import sys; sys.modules.update(dict.fromkeys({others}));"
        "import keras; from keras_sspcab import SSPCABLayer;"
        "import keras_sspcab.losses, keras_sspcab.surgery;"
        "keras.Sequential([keras.Input((8, 8, 4)), SSPCABLayer()])"
    )


@pytest.mark.parametrize(
    "module",
    [
        "keras_sspcab",
        "keras_sspcab.metrics",
        "keras_sspcab.preprocessing",
        "keras_sspcab.export.serving.client",
    ],
)
def test_modules_without_keras(module):
    others = {"keras", "pandas", "scipy", "sklearn", "tensorflow", "torch"}
    script = f"import sys, {module}; print(*{others} & set(sys.modules))"
    assert run_script(script) == ""


@pytest.mark.parametrize(
    "imports",
    [
        "import keras_sspcab, keras",
        "import keras, keras_sspcab",
        "import keras_sspcab; from keras import saving; import keras",
        "import keras_sspcab, importlib.util;"
        "importlib.util.find_spec('keras'); import keras",
    ],
)
def test_layers_are_registered_whatever_is_imported_first(imports):
    find = "keras.saving.get_registered_object('keras_sspcab>SSPCABLayer')"
    assert "SSPCABLayer" in run_script(f"{imports}; print({find})")


def test_names_do_not_depend_on_the_name_of_the_program(tmp_path):
    program = tmp_path / "keras-sspcab"
    program.write_text("from keras_sspcab import SSPCABLayer; SSPCABLayer()")
    subprocess.run([sys.executable, program], check=True)
