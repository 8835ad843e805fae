"""What a comparison checks and measures before anything is run."""

import contextlib
import gc
from collections.abc import Sequence

from keras_sspcab.cli._model import construct
from keras_sspcab.cli._sources import source_of
from keras_sspcab.compare.grid import OFF, ON
from keras_sspcab.compare.kinds import KINDS, Kind
from keras_sspcab.compare.settings import Settings
from keras_sspcab.runs import ConfigError


def hide_gpus() -> None:
    """Leaves the GPUs to the processes of the cells."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        # Too late where something else in this process uses them.
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], "GPU")


def kind_of(models: Sequence[str]) -> Kind:
    """Returns the kind of data that all hosts look at.

    Raises:
        ConfigError: If they look at different kinds, or at one that cannot be
            compared.
    """
    from keras_sspcab.applications import get_application

    kinds = {model: get_application(model).kind for model in models}
    for model, kind in kinds.items():
        if kind not in KINDS:
            raise ConfigError(
                f"Models of {kind} cannot be compared. Received: {model}. "
                f"Choose models of: {', '.join(KINDS)}"
            )
    if len({KINDS[kind].name for kind in kinds.values()}) > 1:
        raise ConfigError(
            "Models are compared that look at the same kind of data. "
            f"Received: {', '.join(f'{m} ({k})' for m, k in kinds.items())}"
        )
    return KINDS[kinds[models[0]]]


def check_data_sections(settings: Settings, models: Sequence[str]) -> str:
    """Checks what the models shall read; returns the layout of the data.

    Raises:
        ConfigError: If a setting does not fit the kind of data.
    """
    sections = []
    for model in models:
        config = settings.config(model, "", OFF, 0)
        source_of(config).check(config)
        sections.append(config.data)
    return sections[0].layout


def count_parameters(settings: Settings, model: str, block: str) -> int:
    """Builds a model as the training will; returns its size.

    Raises:
        ConfigError: If the section [model] does not fit the host.
    """
    import keras

    config = settings.config(model, "", block, 0)
    try:
        if config.data.patch_size:
            construct(config, (None, None))
        return construct(config, config.data.image_size).count_params()
    except ConfigError as error:
        if block in (OFF, ON):
            raise
        raise ConfigError(
            f"--sspcab must name places that all models know. Received: "
            f"{block}. {error}"
        ) from error
    finally:
        keras.backend.clear_session()
        gc.collect()
