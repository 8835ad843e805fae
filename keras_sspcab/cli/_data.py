"""Which images a configuration means, and how they are read."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from keras_sspcab.cli._console import say
from keras_sspcab.cli._sources import INFERENCE_BATCH_SIZE, Source
from keras_sspcab.runs import Config, DataConfig, RunFolder

if TYPE_CHECKING:
    from keras_sspcab.data import ImageFolder, ImageSample

# Decoded images of up to this size are kept in memory unasked.
_MEMORY_LIMIT = 2**30


class ImageSource(Source):
    """Images, for hosts that look at images."""

    noun = "images"

    def list_samples(self, path: str, layout: str) -> "ImageFolder":
        """Lists images."""
        from keras_sspcab.data import scan_image_folder

        return scan_image_folder(path, layout)

    def check_samples(
        self, samples: "Sequence[ImageSample]", on_error: str
    ) -> "tuple[ImageSample, ...]":
        """Decodes all images."""
        from keras_sspcab.data import check_images

        return check_images(samples, on_error=on_error)

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
        self, samples: "Sequence[ImageSample]", config: Config
    ) -> Any:
        """Whole images in order."""
        return images_of(samples, config.data)

    def statistics_dataset(
        self,
        run: RunFolder,
        config: Config,
        samples: "Sequence[ImageSample]",
    ) -> Any:
        """Whole images in order, kept as `[data] cache` says."""
        cache = _cache_of(run, config.data, len(samples))
        return images_of(samples, config.data, cache=cache)


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
