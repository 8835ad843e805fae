"""Settings and fixtures that all tests share."""

import contextlib
import gc
import os
from pathlib import Path
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# What tests log stays here.
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_ERROR_REPORTING"] = "false"
os.environ["WANDB_SILENT"] = "true"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import keras
import pytest
from hypothesis import settings

from tests.browser import browser  # noqa: F401

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

keras.config.disable_traceback_filtering()

# A busy machine is no failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

if keras.config.backend() == "tensorflow":
    import tensorflow as tf

    # Two devices, for the tests of distribution strategies.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )


@pytest.fixture(autouse=True)
def _seed():
    with _kept_functions():
        keras.utils.set_random_seed(0)


@contextlib.contextmanager
def _kept_functions():
    """Keeps TensorFlow's compiled functions, which setting a seed discards.

    Tests of one file share models, and would have to compile them again.
    """
    if keras.config.backend() != "tensorflow":
        yield
        return
    from tensorflow.python.eager import context

    with mock.patch.object(context.pywrap_tfe, "TFE_ContextClearCaches"):
        yield


@pytest.fixture(scope="module", autouse=True)
def _settled_memory():
    """Spares later collections what TensorFlow keeps of all it has traced."""
    keras.utils.set_random_seed(0)
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def small_disk():
    """A context with a size that no file can exceed: as good as a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    @contextlib.contextmanager
    def small_disk(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return small_disk


def _real_data(name: str) -> Path:
    folder = SHARED_DATA / name
    if not folder.is_dir():
        pytest.skip(f"needs the images of {name} beside the project")
    return folder


@pytest.fixture(scope="session")
def mvtec_screw() -> Path:
    """The folder of MVTec AD's screw, where it lies beside the project."""
    return _real_data("mvtec_screw")


@pytest.fixture(scope="session")
def magnetic_tile() -> Path:
    """The folder of magnetic tiles, where it lies beside the project."""
    return _real_data("magnetic_tile")


@pytest.fixture(scope="session")
def faults() -> Path:
    """Inputs that went wrong once, where they lie beside the project."""
    return _real_data("faults")
