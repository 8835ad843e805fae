"""Which images a configuration means, and how they are read."""

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import say
from keras_sspcab.runs import Config, ConfigError, DataConfig, RunFolder

if TYPE_CHECKING:
    from keras_sspcab.data import ImageFolder, ImageSample

# Images in one step where nothing is trained: whole images take more memory
# than the patches of the training.
INFERENCE_BATCH_SIZE = 8

# Decoded images of up to this size are kept in memory unasked.
_MEMORY_LIMIT = 2**30


def scan_folder(config: Config) -> "ImageFolder":
    """Lists the images.

    Raises:
        ValueError: If the folder cannot be used.
    """
    import_backend()
    from keras_sspcab.data import scan_image_folder

    if not config.data.path:
        raise ConfigError(
            "There is no folder of images. Give one with --data, or as "
            "`path` in the section [data] of a configuration file"
        )
    return scan_image_folder(config.data.path, config.data.layout)


def split_folder(config: Config) -> "ImageFolder":
    """Lists the images and holds out a part of the normal ones.

    Broken images stop it, or are left out first, as `[data] on_error` says.

    Raises:
        ValueError: If the folder or an image cannot be used.
    """
    folder = scan_folder(config)
    from keras_sspcab.data import check_images

    samples = (*folder.train, *folder.validation)
    good = set(check_images(samples, on_error=config.data.on_error))
    folder = dataclasses.replace(
        folder,
        train=tuple(s for s in folder.train if s in good),
        validation=tuple(s for s in folder.validation if s in good),
    )
    if folder.validation:
        return folder
    return folder.with_validation(
        config.data.validation_fraction, config.data.validation_seed
    )


def images_of(
    samples: "Iterable[ImageSample]", data: DataConfig, **options: Any
) -> Any:
    """Returns a dataset of whole images, to score them."""
    from keras_sspcab.data import image_dataset

    return image_dataset(
        samples,
        data.image_size,
        data.channels,
        batch_size=INFERENCE_BATCH_SIZE,
        **options,
    )


def cache_of(run: RunFolder, data: DataConfig, num_images: int) -> bool | str:
    """Returns the `cache` argument of `image_dataset`."""
    height, width = data.image_size
    size = num_images * height * width * data.channels * 4
    if data.cache == "disk":
        return run.file("cache")
    if data.cache == "auto" and size > _MEMORY_LIMIT:
        say(
            f"The decoded images take {size / 2**30:.1f} GiB: they are read "
            "anew in each epoch. data.cache=disk or memory keeps them."
        )
        return False
    return data.cache in ("auto", "memory")


def fingerprint(folder: "ImageFolder") -> str:
    """Names the training images, wherever the folder lies."""
    names = sorted(
        sample.path.removeprefix(folder.root).strip("/")
        for sample in folder.train
    )
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return f"{len(names)} images, names with hash {digest[:12]}"
