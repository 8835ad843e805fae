"""Images, videos and objects of videos as the data of a run."""

from typing import Any

from keras_sspcab.hosts import (
    AnomalyModel,
    ProductModel,
    available_applications,
    get_application,
)
from keras_sspcab.runs.config import Config
from keras_sspcab.runs.folder import RunFolder
from keras_sspcab.runs.parsing import load_config
from keras_sspcab.runs.sources.base import Source
from keras_sspcab.runs.sources.images import ImageSource
from keras_sspcab.runs.sources.objects import ObjectSource
from keras_sspcab.runs.sources.videos import VideoSource


def source_of(
    config: Config,
    run: RunFolder | None = None,
    model: AnomalyModel | None = None,
) -> Source:
    """Returns the data of a run, as its host takes them.

    A model that is there already gets images as in its training.
    """
    host = get_application(config.model.name)
    kinds: dict[str, type[Source]] = {
        "image": ImageSource,
        "video": VideoSource,
        "objects": ObjectSource,
    }
    source = kinds[host.kind](config, host, run)
    if model is not None:
        source.preprocessing = model.preprocessing
    return source


def config_for(model: AnomalyModel) -> Config:
    """Returns a configuration for a model that comes without a run."""
    # What an inspection or a model of several products is made of.
    own: Any = getattr(model, "host", model)
    if isinstance(model, ProductModel):
        own = model.shared_host()
    hosts = available_applications()
    # Of others, such as an ensemble, the kind is what counts.
    alike = (name for name, host in hosts.items() if host.kind == own.kind)
    known = (name for name, host in hosts.items() if isinstance(own, host))
    name = next(known, None) or next(alike)
    sizes = own.arguments.get("input_shape") if own is model else None
    *length, height, width, channels = sizes or model.input_shape[1:]
    return load_config(
        None,
        {
            "model.name": name,
            "data.image_size": [height, width],
            "data.channels": channels,
            "data.clip_length": length[0] if length else 1,
            # The host's own may be larger than its images.
            "data.patch_size": 0,
        },
    )
