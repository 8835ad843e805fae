"""Which images a configuration means, and how they are read."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
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


class ImageSource:
    """Images, for hosts that look at images; see `Source`."""

    noun = "images"

    def check(self, config: Config) -> None:
        """All settings are for images, or have no effect on them."""

    def split(self, config: Config) -> "ImageFolder":
        """Lists the images, some of the normal ones held out."""
        return split_folder(config)

    def count(self, config: Config, folder: "ImageFolder") -> int:
        """Patches or images in an epoch."""
        data = config.data
        patches = data.patches_per_image if data.patch_size else 1
        return len(folder.train) * patches

    def training_datasets(
        self, run: RunFolder, config: Config, folder: "ImageFolder"
    ) -> Callable[[int], Any]:
        """Images or patches in random order."""
        from keras_sspcab.data import image_dataset

        data, training = config.data, config.training
        cache = _cache_of(run, data, len(folder.train))

        def make_dataset(epoch: int) -> Any:
            return image_dataset(
                folder.train,
                data.image_size,
                data.channels,
                batch_size=training.batch_size,
                shuffle=True,
                seed=training.seed,
                epoch=epoch,
                cache=cache,
                patch_size=data.patch_size or None,
                patches_per_image=(
                    data.patches_per_image if data.patch_size else 1
                ),
                flip=data.flip,
            )

        return make_dataset

    def scoring_dataset(
        self, samples: "Iterable[ImageSample]", config: Config
    ) -> Any:
        """Whole images in order."""
        return images_of(samples, config.data)

    def fingerprint(self, folder: "ImageFolder") -> str:
        """Names the training images, wherever the folder lies."""
        names = [sample.path for sample in folder.train]
        return describe_names(names, folder.root, self.noun)


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


def _cache_of(run: RunFolder, data: DataConfig, num_images: int) -> bool | str:
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


def describe_names(names: Iterable[str], root: str, noun: str) -> str:
    """Returns a count and a hash of paths, wherever their root lies."""
    found = sorted(name.removeprefix(root).strip("/") for name in names)
    digest = hashlib.sha256("\n".join(found).encode()).hexdigest()
    return f"{len(found)} {noun}, names with hash {digest[:12]}"
