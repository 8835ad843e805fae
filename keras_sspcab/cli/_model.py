"""Builds the model of a configuration, and loads one that was trained."""

import inspect
import math
import os
import zipfile
from typing import TYPE_CHECKING

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.runs import Config, ConfigError, RunFolder

if TYPE_CHECKING:
    from keras_sspcab.applications import AnomalyModel

Size = tuple[int | None, int | None]


def build_model(config: Config) -> "AnomalyModel":
    """Builds the model to train.

    Args:
        config: The configuration.

    Raises:
        ConfigError: If the section [model] does not fit the host.
    """
    import keras

    keras.utils.set_random_seed(config.training.seed)
    size = config.data.image_size
    if not config.data.patch_size:
        return construct(config, size)
    # The weights serve patches and, later, whole images.
    model = construct(config, (None, None))
    # Which must fit the host as well.
    construct(config, size)
    return model


def compile_model(
    model: "AnomalyModel", config: Config, num_samples: int
) -> None:
    """Compiles a model to be trained in one go.

    Args:
        model: The model.
        config: The configuration.
        num_samples: Training samples in an epoch.
    """
    training = config.training
    steps = math.ceil(num_samples / training.batch_size)
    model.compile(
        learning_rate=training.learning_rate or None,
        steps=steps * training.epochs,
        jit_compile=training.jit_compile,
    )


def construct(config: Config, size: Size) -> "AnomalyModel":
    """Builds the host of a configuration.

    Args:
        config: The configuration.
        size: Height and width of its images or frames; None for any.

    Raises:
        ConfigError: If the section [model] does not fit the host.
    """
    from keras_sspcab.applications import get_application

    host = get_application(config.model.name)
    reserved = {"input_shape", "calibration", "name", "self"}
    parameters = inspect.signature(host).parameters
    allowed = sorted(set(parameters) - reserved)
    if unknown := sorted(set(config.model.options) - set(allowed)):
        raise ConfigError(
            f"Unknown key `model.{unknown[0]}` for the model "
            f"{config.model.name!r}. Allowed in [model] are: name, "
            f"{', '.join(allowed)}"
        )
    shape: tuple[int | None, ...] = (*size, config.data.channels)
    if host.takes_frames:
        shape = (config.data.clip_length, *shape)
    options = dict(config.model.options)
    if "seed" in parameters:
        # What is drawn when a model is built.
        options.setdefault("seed", config.training.seed)
    try:
        return host(input_shape=shape, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"The section [model] does not fit {config.model.name!r}: {error}"
        ) from error


def load_detector(path: str) -> "AnomalyModel":
    """Loads the model of a run folder or of a `.keras` file.

    Raises:
        ValueError: If there is none, or it is no detector of this package.
    """
    if not path.endswith(".keras"):
        path = RunFolder(path).require("model.keras", "keras-sspcab train")
    if not os.path.isfile(path):
        raise ValueError(f"There is no model at {path!r}")
    import_backend()
    import keras

    from keras_sspcab.applications import AnomalyModel

    try:
        model = keras.models.load_model(path, compile=False)
    except (
        KeyError,
        OSError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(
            f"{path} cannot be loaded. It must be written by "
            f"`keras-sspcab train` or `model.save`. Received: {error}"
        ) from error
    if not isinstance(model, AnomalyModel):
        raise ValueError(
            f"{path} holds no anomaly detector of this package. "
            f"Received: {type(model).__name__}"
        )
    return model
