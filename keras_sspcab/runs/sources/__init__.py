"""Images, videos and objects of videos as the data of a run."""

from keras_sspcab.hosts import (
    AnomalyModel,
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


def source_of(config: Config, run: RunFolder | None = None) -> Source:
    """Returns the data of a run, as its host takes them."""
    host = get_application(config.model.name)
    kinds: dict[str, type[Source]] = {
        "image": ImageSource,
        "video": VideoSource,
        "objects": ObjectSource,
    }
    return kinds[host.kind](config, host, run)


def config_for(model: AnomalyModel) -> Config:
    """Returns a configuration for a model that comes without a run."""
    name = next(
        name
        for name, host in available_applications().items()
        if isinstance(model, host)
    )
    *length, height, width, channels = model.arguments["input_shape"]
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
