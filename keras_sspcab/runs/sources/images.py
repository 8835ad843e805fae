"""Images as the data of a run."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from keras_sspcab.data import (
    ImageFolder,
    ImageSample,
    check_images,
    image_dataset,
    scan_image_folder,
)
from keras_sspcab.data.batching import images_at_once
from keras_sspcab.data.checking import measure_preprocessing
from keras_sspcab.data.image_files import read_pixels
from keras_sspcab.data.parallel import parallel_map
from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.runs.config import (
    ConfigError,
    EvaluationConfig,
)
from keras_sspcab.runs.sources.base import Source
from keras_sspcab.variants import ImageVariants

# Images whose aspect ratio is looked at, from which change on it is told, and
# steps of the sides that are proposed.
_LOOKED_AT, _LARGEST_CHANGE, _STEP = 8, 1.25, 32

# Decoded images of up to this size are kept in memory unasked.
_MEMORY_LIMIT = 2**30


class ImageSource(Source):
    """Images, for hosts that look at images."""

    noun = "images"

    def list_samples(
        self, path: str, layout: str, require_train: bool = True
    ) -> ImageFolder:
        return scan_image_folder(path, layout, require_train)

    def check_samples(
        self, samples: Sequence[ImageSample], on_error: str
    ) -> tuple[ImageSample, ...]:
        return check_images(
            samples, on_error=on_error, preprocessing=self.preprocessing
        )

    def split(self, folder: Any = None) -> ImageFolder:
        """As of all sources; finds the size of images that is not given."""
        folder = super().split(folder)
        if not any(self.data.image_size):
            size = _common_size([s.path for s in folder.train])
            self.data = self.data.model_copy(update={"image_size": size})
            self.config = self.config.model_copy(update={"data": self.data})
        return folder

    def measure_white(self, samples: Sequence[ImageSample]) -> Preprocessing:
        return measure_preprocessing(samples)

    @property
    def _patches_per_image(self) -> int:
        return self.data.patches_per_image if self.data.patch_size else 1

    def check(self) -> None:
        """Refuses what the model makes no use of."""
        super().check()
        if not self.host.calibrates_by_folds:
            self.refuse("data.brightness", "models of frozen features")
        for key in ("clip_length", "stride", "step"):
            self.refuse(f"data.{key}", "videos")
        for key in self.changed_objects():
            self.refuse(key, "objects of videos")
        if not self.config.inspection.tile:
            self.refuse("inspection.overlap", "tiles")
        if not self.config.inspection.align:
            for key in ("max_angle", "max_shift"):
                self.refuse(f"inspection.{key}", "images that are aligned")

    def check_evaluation(self) -> None:
        """Refuses settings that are for videos."""
        for key in EvaluationConfig.model_fields.keys() - {"masks"}:
            self.refuse(f"evaluation.{key}", "videos")

    def variants(self, folder: ImageFolder) -> ImageVariants:
        """As the user says."""
        data = self.data
        return ImageVariants(
            data.symmetric, data.brightness, self._rotation(folder) != 180
        )

    def _rotation(self, folder: ImageFolder) -> int:
        """Degrees by whose multiples images may be turned; 0 for none."""
        if "rotate" not in self.data.symmetric:
            return 0
        # Not those that become square by being stretched.
        height, width = _size_of(folder.train[0].path)
        keeps_ratio = height == width or self.data.fit != "stretch"
        is_square = keeps_ratio and len({*self.data.image_size}) == 1
        return 90 if is_square else 180

    def warn_of_ratio(self, folder: ImageFolder) -> None:
        """Warns if stretching makes images much wider or taller."""
        if self.data.fit != "stretch":
            return
        rows, columns = self.data.image_size
        for sample in folder.train[:_LOOKED_AT]:
            height, width = _size_of(sample.path)
            change = height * columns / (width * rows)
            if max(change, 1 / change) <= _LARGEST_CHANGE:
                continue
            # As many pixels, in steps that networks like.
            side = (rows * columns * height / width) ** 0.5
            fitting = [
                max(_STEP, _STEP * round(s / _STEP))
                for s in (side, side * width / height)
            ]
            warnings.warn(
                f"Images are stretched: {sample.path} of {height} x {width} "
                f"pixels becomes {rows} x {columns}, which looks "
                f"{max(change, 1 / change):.2g} times as "
                f"{'wide' if change > 1 else 'high'}. Keep the aspect ratio by "
                f"`data.image_size`={fitting[0]}x{fitting[1]} where all images "
                "have one, or by `data.fit`=pad or crop",
                stacklevel=2,
            )
            return

    def epoch_size(self, folder: ImageFolder) -> int:
        """Patches or images in an epoch."""
        return len(folder.train) * self._patches_per_image

    def training_datasets(
        self, folder: ImageFolder, with_pseudo_abnormal: bool = False
    ) -> Callable[[int], Any]:
        """Images or patches in random order."""
        data, training = self.data, self.config.training
        cache = self._cache(len(folder.train))
        rotation = self._rotation(folder)

        def make_dataset(epoch: int) -> Any:
            return image_dataset(
                folder.train,
                data.image_size,
                data.channels,
                # Of large images, tiles make a batch.
                batch_size=1
                if self.config.needs_inspection
                else training.batch_size,
                shuffle=True,
                seed=training.seed,
                epoch=epoch,
                cache=cache,
                patch_size=data.patch_size or None,
                patches_per_image=self._patches_per_image,
                flip=data.flip or "flip" in data.symmetric,
                rotate=rotation,
                preprocessing=self.preprocessing,
            )

        return make_dataset

    def scoring_dataset(
        self, samples: Sequence[ImageSample], is_reread: bool = False
    ) -> Any:
        """Whole images in order."""
        cache = self._cache(len(samples)) if is_reread else False
        if is_reread and cache is False:
            return _ImageParts(samples, self.whole_images)
        return self.whole_images(samples, cache=cache)

    def whole_images(
        self, samples: Sequence[ImageSample], **options: Any
    ) -> Any:
        """Returns a dataset of whole images; options as of `image_dataset`."""
        return image_dataset(
            samples,
            self.data.image_size,
            self.data.channels,
            batch_size=images_at_once(self.data.image_size),
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
                "read again each time they are looked at. data.cache=disk or "
                "memory keeps them",
                stacklevel=2,
            )
            return False
        return self.data.cache in ("auto", "memory")


class _ImageParts:
    """Batches of images read from files, all of them or a part."""

    def __init__(
        self,
        samples: Sequence[ImageSample],
        read: Callable[[Sequence[ImageSample]], Any],
    ) -> None:
        self._samples = samples
        self._read = read
        self._all = read(samples)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def part(self, numbers: Iterable[int]) -> "_ImageParts":
        """Returns the images of these numbers, from 0."""
        return _ImageParts([self._samples[n] for n in numbers], self._read)


def _size_of(path: str) -> tuple[int, int]:
    height, width, _ = read_pixels(path, 1, dtype=None).shape
    return height, width


def _common_size(paths: Sequence[str]) -> tuple[int, int]:
    """Returns height and width of images, which must be the same for all."""
    sizes = parallel_map(_size_of, paths, "Measuring images")
    for path, size in zip(paths, sizes, strict=True):
        if size != sizes[0]:
            first, other = (f"{h} x {w}" for h, w in (sizes[0], size))
            raise ConfigError(
                f"The training images are not of one size: {paths[0]} has "
                f"{first} pixels, {path} has {other}. Give the size that they "
                "shall be resized to as `data.image_size`"
            )
    return sizes[0]
