"""The model of a configuration, and one that was trained."""

import inspect
import math
import os
import re
from collections.abc import Collection, Sequence
from typing import Any

import keras

from keras_sspcab.data import read_regions
from keras_sspcab.hosts import (
    AnomalyModel,
    InspectionModel,
    available_applications,
    get_application,
    require_finite_weights,
)
from keras_sspcab.layers import ImageRegistration
from keras_sspcab.runs.config import Config, ConfigError, ModelConfig
from keras_sspcab.runs.folder import RunFolder
from keras_sspcab.runs.parsing import arguments_of


def build_model(config: Config) -> AnomalyModel:
    """Builds the model to train."""
    keras.utils.set_random_seed(config.training.seed)
    size = config.data.image_size
    if not config.data.patch_size:
        return construct(config, size)
    # The weights serve patches and, later, whole images.
    model = construct(config, (None, None))
    # The size of whole images must fit the host as well.
    construct(config, size)
    return model


def construct(
    config: Config, size: tuple[int | None, int | None]
) -> AnomalyModel:
    """Builds the model for images of a size `(height, width)`, None for any."""
    if size == (0, 0):
        raise ConfigError(
            "The size of the images is not known. Received: data.image_size=0. "
            "Give their height and width"
        )
    if not config.needs_inspection:
        return _construct_host(config, size)
    if config.data.patch_size:
        raise ConfigError(
            "With tiles, regions, an alignment or padding there are no random "
            "patches. Received: "
            f"data.patch_size={config.data.patch_size}. Set it to 0"
        )
    inspection = config.inspection
    if size[0] is None or size[1] is None:
        raise ConfigError(
            "Tiles, regions, alignments and padding need a size of images"
        )
    size = (size[0], size[1])
    side, regions, alignment = inspection.tile, None, None
    host = _construct_host(config, (side, side) if side else size)
    if inspection.roi:
        regions = read_regions(inspection.roi, size, config.data.fit)
    if inspection.align:
        alignment = ImageRegistration(
            inspection.max_angle, inspection.max_shift, name="alignment"
        )
    try:
        return InspectionModel(
            host,
            size,
            inspection.overlap,
            regions,
            alignment,
            padded=config.data.fit == "pad",
        )
    except ValueError as error:
        raise ConfigError(
            "The settings of [inspection] and data.fit do not fit the images: "
            f"{error}"
        ) from error


def _construct_host(
    config: Config, size: tuple[int | None, int | None]
) -> AnomalyModel:
    host = get_application(config.model.name)
    shape: tuple[int | None, ...] = (*size, config.data.channels)
    if host.takes_frames:
        shape = (config.data.clip_length, *shape)
    options = dict(config.model.options)
    if "seed" in inspect.signature(host).parameters:
        # What is drawn when a model is built.
        options.setdefault("seed", config.training.seed)
    try:
        return host(input_shape=shape, **options)
    except (TypeError, ValueError) as error:
        reason = re.sub(
            r"(?:The )?`(\w+)`(?: argument)?",
            lambda match: _name_setting(match, arguments_of(host)),
            str(error),
        )
        raise ConfigError(
            f"The settings do not fit {config.model.name!r}: {reason}"
        ) from error


def _name_setting(match: re.Match[str], arguments: Collection[str]) -> str:
    """Names the setting that an argument of a host comes from."""
    if match[1] == "input_shape":
        return "the shape of the data (`data.image_size` and others)"
    # What loads a pretrained network calls it by its name.
    name = "backbone" if match[1] == "name" else match[1]
    return f"`model.{name}`" if name in arguments else match[0]


def import_model(
    config: Config, paths: Sequence[str], channel_order: str | None = None
) -> tuple[AnomalyModel, Config]:
    """Builds the model of a published checkpoint; see `Run.import_weights`.

    Returns it with a configuration whose sections `[data]` and `[model]` say
    what the files have decided.
    """
    host = get_application(config.model.name)
    keras.utils.set_random_seed(config.training.seed)
    usual = host.default_settings.get("model", {})
    options = {
        name: value
        for name, value in config.model.options.items()
        if name not in usual or value != usual[name]
    }
    if "image_size" in inspect.signature(host.from_published).parameters:
        options["image_size"] = config.data.image_size
    if channel_order is not None:
        options["channel_order"] = channel_order
    try:
        model = host.from_published(*paths, **options)
    except TypeError as error:
        raise ConfigError(
            f"{config.model.name!r} cannot be made of {len(paths)} files and "
            f"these settings of [model]: {error}"
        ) from error
    decided = {
        name: model.arguments[name]
        for name, parameter in arguments_of(host).items()
        if name in model.arguments
        and (name in usual or model.arguments[name] != parameter.default)
    }
    *frames, height, width, channels = model.arguments["input_shape"]
    resize = host.published_resize
    if "resize" in config.data.model_fields_set:
        resize = config.data.resize
    data = {
        "image_size": (height, width),
        "resize": resize,
        "channels": channels,
        "patch_size": 0,
        **({"clip_length": frames[0]} if frames else {}),
    }
    return model, config.model_copy(
        update={
            "data": config.data.model_copy(update=data),
            "model": ModelConfig(name=config.model.name, **decided),
        }
    )


def compile_model(model: Any, config: Config, num_samples: int) -> None:
    """Compiles a host or a stage of one, for epochs of so many samples."""
    training = config.training
    steps = math.ceil(num_samples / training.batch_size)
    is_host = isinstance(model, AnomalyModel)
    model.compile(
        learning_rate=training.learning_rate or None,
        steps=steps * training.epochs,
        jit_compile=training.jit_compile,
        **({"epochs": training.epochs} if is_host else {}),
    )


def load_detector(path: str) -> AnomalyModel:
    """Loads the model of a run folder or of a `.keras` file.

    Example:
    >>> import tempfile
    >>> from keras_sspcab.applications import AutoEncoder
    >>> model = AutoEncoder((32, 32, 1), filters=(4, 4, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(f"{folder}/a.keras")
    ...     load_detector(f"{folder}/a.keras").input_shape
    (None, 32, 32, 1)
    """
    if not path.endswith(".keras"):
        path = RunFolder(path).require("model.keras", "keras-sspcab train")
    if not os.path.isfile(path):
        raise ValueError(f"There is no model at {path!r}")
    available_applications()  # Makes their classes known to Keras.
    try:
        model = keras.models.load_model(path, compile=False)
    # Whatever a damaged file leads to, in Keras, HDF5, ZIP or JSON.
    except Exception as error:
        raise ValueError(
            f"{path} cannot be loaded. It must be written by "
            "`keras-sspcab train` or `model.save`. Received: "
            f"{str(error) or type(error).__name__}"
        ) from error
    if not isinstance(model, AnomalyModel):
        raise ValueError(
            f"{path} holds no anomaly detector of this package. "
            f"Received: {type(model).__name__}"
        )
    try:
        require_finite_weights(model)
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from error
    return model
