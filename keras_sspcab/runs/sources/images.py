"""Images as the data of a run."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from keras_sspcab.data import (
    ImageFolder,
    ImageSample,
    check_images,
    image_dataset,
    scan_image_folder,
)
from keras_sspcab.data.checking import measure_preprocessing
from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.runs.sources.base import INFERENCE_BATCH_SIZE, Source

# Decoded images of up to this size are kept in memory unasked.
_MEMORY_LIMIT = 2**30


class ImageSource(Source):
    """Images, for hosts that look at images."""

    noun = "images"

    def list_samples(self, path: str, layout: str) -> ImageFolder:
        return scan_image_folder(path, layout)

    def check_samples(
        self, samples: Sequence[ImageSample], on_error: str
    ) -> tuple[ImageSample, ...]:
        return check_images(
            samples, on_error=on_error, preprocessing=self.preprocessing
        )

    def measure_white(self, samples: Sequence[ImageSample]) -> Preprocessing:
        return measure_preprocessing(samples)

    @property
    def _patches_per_image(self) -> int:
        return self.data.patches_per_image if self.data.patch_size else 1

    def epoch_size(self, folder: ImageFolder) -> int:
        """Patches or images in an epoch."""
        return len(folder.train) * self._patches_per_image

    def training_datasets(
        self, folder: ImageFolder, with_pseudo_abnormal: bool = False
    ) -> Callable[[int], Any]:
        """Images or patches in random order."""
        data, training = self.data, self.config.training
        cache = self._cache(len(folder.train))

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
                patches_per_image=self._patches_per_image,
                flip=data.flip,
                preprocessing=self.preprocessing,
            )

        return make_dataset

    def scoring_dataset(
        self, samples: Sequence[ImageSample], is_reread: bool = False
    ) -> Any:
        """Whole images in order."""
        cache = self._cache(len(samples)) if is_reread else False
        return self.whole_images(samples, cache=cache)

    def whole_images(
        self, samples: Sequence[ImageSample], **options: Any
    ) -> Any:
        """Returns a dataset of whole images; options as of `image_dataset`."""
        return image_dataset(
            samples,
            self.data.image_size,
            self.data.channels,
            batch_size=INFERENCE_BATCH_SIZE,
            preprocessing=self.preprocessing,
            **options,
        )

    def _cache(self, num_images: int) -> bool | str:
        """Returns the `cache` argument of `image_dataset`."""
        height, width = self.data.image_size
        size = num_images * height * width * self.data.channels * 4
        if self.data.cache == "disk" and self.run is not None:
            return self.run.file("cache")
        if self.data.cache == "auto" and size > _MEMORY_LIMIT:
            warnings.warn(
                f"The decoded images take {size / 2**30:.1f} GiB: they are "
                "read again in each epoch. data.cache=disk or memory keeps "
                "them",
                stacklevel=2,
            )
            return False
        return self.data.cache in ("auto", "memory")
