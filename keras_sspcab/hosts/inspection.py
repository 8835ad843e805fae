"""A host at work on a line: large images, regions, parts that lie askew."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sspcab.hosts.base import AnomalyModel
from keras_sspcab.hosts.batches import hold_out, is_endless, scoring_data
from keras_sspcab.hosts.detector import Untracked
from keras_sspcab.hosts.feature_model import FeatureModel, untracked_model
from keras_sspcab.hosts.normal_scores import NormalScores, PixelSample
from keras_sspcab.hosts.tiling import TiledScoring, TileGrid
from keras_sspcab.layers import (
    ImageRegistration,
    RegistrationGain,
    RigidResampling,
)
from keras_sspcab.regions import Region, Regions
from keras_sspcab.scoring import (
    Calibration,
    PaddingMask,
    RegionMask,
    RegionScores,
    input_statistics,
    join_statistics,
)

# Pixels of a map that are kept of an image to calibrate with, at most.
_PIXELS_PER_IMAGE = 100_000


@keras.saving.register_keras_serializable(package="keras_sspcab")
class InspectionModel(AnomalyModel):
    """Puts a host of images to work on images as a camera takes them.

    Each image is aligned with the normal ones, if that is asked for; what is
    outside of the regions is blanked; a host that is smaller than the
    image looks at one tile after the other, and their maps and scores are put
    together. The map is that of the image as it lies. All of it is in the
    graph, and so in every export.

    The host is trained on tiles, and calibrated as a whole: on images. One that
    compares positions with statistics of normal images compares positions in
    tiles.

    Args:
        host: An `AnomalyModel` for images of one size, which is that of a tile.
            It is not copied; its own calibration does not count.
        image_size: Height and width of the images; None (the default) for those
            of the host.
        overlap: Share of a tile's side that neighbors have in common at least,
            from 0 to 0.5. Defaults to 0.25.
        regions: `Regions` of the size of the images, or the dict of some; None
            (the default) for all of the image. They lie where the part lies in
            the reference of the alignment.
        alignment: An `ImageRegistration`, or None (the default); `fit` fits it
            first.
        padded: Whether images may have padding, as
            `keras_sspcab.data.resize(fit="pad")` puts it there. It counts as
            little as what is outside of the regions. Defaults to False.
        calibration: A `Calibration`; set by `calibrate`.
        name: Name of the model; None takes that of the host.

    Outputs besides those of all hosts:
        alignment_quality: `(batch,)`, with an alignment; see
            `ImageRegistration`.
        region_scores: `(batch, regions)`, with several regions, in standard
            deviations above the mean of normal images.
        region_is_anomalous: `(batch, regions)`. One such region makes an image
            anomalous.

    Raises:
        ValueError: If the host is none of images or has no size, sizes do not
            fit, or images are to be both aligned and padded.

    Example:
    >>> from keras_sspcab.applications import PatchCore
    >>> host = PatchCore((32, 32, 3), weights=None, memory_size=16)
    >>> model = InspectionModel(host, image_size=(48, 80))
    >>> normal = np.random.default_rng(0).random((4, 48, 80, 3), "float32")
    >>> history = model.fit(normal)
    >>> model.calibrate().num_images
    4
    >>> model.predict(normal, verbose=0)["anomaly_map"].shape
    (4, 48, 80)
    """

    def __init__(
        self,
        host: AnomalyModel,
        image_size: Sequence[int] | None = None,
        overlap: float = 0.25,
        regions: Regions | dict[str, Any] | None = None,
        alignment: ImageRegistration | None = None,
        calibration: Calibration | dict[str, Any] | None = None,
        name: str | None = None,
        padded: bool = False,
    ) -> None:
        tile_size, channels = _check_host(host)
        height, width = image_size or tile_size
        size = (int(height), int(width))
        if isinstance(regions, dict):
            regions = Regions.from_dict(regions)
        if regions is not None and regions.image_size != size:
            raise ValueError(
                "Regions must be as large as the images. Received: regions of "
                f"{regions.image_size[0]} x {regions.image_size[1]} pixels, "
                f"images of {size[0]} x {size[1]}"
            )

        if padded and alignment is not None:
            raise ValueError(
                "Images with padding are not aligned. Received: padded=True "
                "and an alignment. Crop the images, or give them a size of "
                "their own ratio"
            )

        # === Functional model ===
        image = keras.Input((*size, channels), name="image")
        prepared: Any = image
        skipped: tuple[int, ...] = ()
        if alignment is not None:
            aligned = alignment(image)
            prepared = aligned["images"]
        if regions is not None:
            prepared = RegionMask(regions, name="region_mask")(prepared)
            tiles = TileGrid(size, tile_size, overlap)
            is_empty = ~tiles.cut(regions.inside).any(axis=(1, 2))
            skipped = tuple(np.flatnonzero(is_empty).tolist())
        raw_score, raw_map = TiledScoring(
            host, size, overlap, skipped, name="tiles"
        )(prepared)
        if padded:
            raw_map = PaddingMask(name="padding_mask")(image, raw_map)
        raw = {"raw_score": raw_score, "raw_map": raw_map}
        of_regions: dict[str, Any] = {}
        parts = () if regions is None else regions.parts
        if len(parts) == 1 and parts[0] == Region(parts[0].name):
            # It decides as the image does.
            parts = ()
        if regions is not None:
            scored = RegionScores(
                regions,
                Calibration.standardize(calibration).regions,
                name="region_scores",
            )(raw_map)
            for part in ("raw_map", "raw_region_scores"):
                raw[part] = scored.pop(part)
            of_regions = scored if parts else {}
        raw_map = raw["raw_map"]
        if alignment is not None:
            # What was not seen is as normal as it gets.
            lowest = ops.min(raw_map, axis=(1, 2), keepdims=True)
            move_back = RigidResampling(
                inverse=True, fill_value=0.0, name="move_back"
            )
            raw_map = lowest + move_back(
                raw_map - lowest, aligned["transforms"]
            )
            of_regions["alignment_quality"] = aligned["quality"]
        outputs = self.detector_outputs(
            raw_score, raw_map, calibration, **of_regions
        )
        if parts:
            outputs["is_anomalous"] = ops.logical_or(
                outputs["is_anomalous"],
                ops.any(of_regions["region_is_anomalous"], axis=-1),
            )
        super().__init__(inputs=image, outputs=outputs, name=name or host.name)
        self._prepare = untracked_model(image, prepared)
        self._raw = untracked_model(image, raw)
        self._held_out = Untracked(None)

        # === Config ===
        self.arguments = {"image_size": size, "overlap": overlap}
        self.is_padded = bool(padded)
        if padded:
            self.arguments["padded"] = True
        self.regions, self.region_parts = regions, parts
        self.alignment = alignment
        self.preprocessing = host.preprocessing
        # Attributes of the class in other hosts.
        for attribute in ("default_settings", "calibrates_by_folds", "guide"):
            object.__setattr__(self, attribute, getattr(host, attribute))
        self.backbone_weights = host.backbone_weights

    @property
    def host(self) -> AnomalyModel:
        """The host, which looks at tiles."""
        return self._tiles.host

    @property
    def _tiles(self) -> TiledScoring:
        return self.get_layer("tiles")

    @property
    def tiles_per_image(self) -> int:
        """How many tiles of an image are looked at."""
        return len(self._tiles.looked_at)

    # === Training ===

    @property
    def needs_training(self) -> bool:
        """Whether the host has something to train."""
        return self.host.needs_training

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the host; takes the arguments of its `compile`."""
        self.host.compile(*args, **kwargs)

    def fit(self, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
        """Trains the host on tiles of normal images, and fits its scoring.

        Args:
            x: Normal images: an array, or an iterable of batches that can be
                read several times.
            y: None; targets follow from the images.
            **kwargs: As of the host's `fit`, in tiles.

        Raises:
            ValueError: If targets are given, or images that are needed again
                can be read only once or have no end.
        """
        self._check_targets(y, kwargs.get("validation_data"))
        x = hold_out(x, kwargs)
        if self.needs_training and is_endless(x):
            raise ValueError(
                "Tiles are cut from a known number of images. Received: "
                f"{type(x).__name__} without an end. Pass a part of it"
            )
        is_read_before = self.needs_training or self.alignment is not None
        x = scoring_data(x, kwargs.get("steps_per_epoch"), is_read_before)
        self.fit_alignment(x)
        if not self.needs_training:
            return super().fit(x, **kwargs)
        size = kwargs.pop("batch_size", None) or 32
        held_out_size = kwargs.pop("validation_batch_size", None) or size
        tiles = self._training_data(x, size)
        if (held_out := kwargs.get("validation_data")) is not None:
            kwargs["validation_data"] = self._training_data(
                held_out, held_out_size
            )
        kwargs.setdefault("shuffle", False)
        # Not its own `fit`, which would fit its scoring to tiles before.
        history = keras.Model.fit(self.host, tiles, **kwargs)
        self.fit_scoring(x)
        return history

    def evaluate(self, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
        """Measures the losses of the host on tiles of normal images.

        The arguments are those of `fit`.
        """
        self._check_targets(y)
        size = kwargs.pop("batch_size", None) or 32
        return keras.Model.evaluate(
            self.host, self._training_data(x, size), **kwargs
        )

    def _check_targets(self, y: Any, validation_data: Any = None) -> None:
        if y is not None or isinstance(validation_data, tuple):
            raise ValueError(
                f"{self.name} makes targets from tiles of the images. Received "
                "targets: leave `y` out, also of `validation_data`"
            )

    def fit_alignment(self, data: Any) -> RegistrationGain | None:
        """Fits the alignment to normal images; see `ImageRegistration.fit`.

        Returns what they gain by it, or None where there is none.
        """
        if self.alignment is None:
            return None
        gain = self.alignment.fit(data)
        self.discard_compiled()
        return gain

    @property
    def tiling(self) -> dict[str, Any]:
        """How `keras_sspcab.data.tile_dataset` cuts images for the host."""
        prepare = self._prepare.value
        if keras.config.backend() != "tensorflow":
            prepare = _in_tensorflow(prepare)
        return {
            "origins": self._tiles.grid.origins[self._tiles.looked_at],
            "tile_size": self._tiles.grid.tile_size,
            "prepare": prepare,
        }

    def _training_data(self, data: Any, batch_size: int) -> Any:
        """Cuts images into tiles, and makes training examples of these."""
        import tensorflow as tf

        from keras_sspcab.data import tile_dataset

        def batches() -> Iterator[np.ndarray]:
            return (images for images, _ in self.input_batches(data, 1))

        images = tf.data.Dataset.from_generator(
            batches,
            output_signature=tf.TensorSpec(
                (None, *self.input_shape[1:]), "float32"
            ),
        )
        count = sum(map(len, batches()))
        return self.host.prepare_training_data(
            tile_dataset(images, count, **self.tiling, batch_size=batch_size)
        )

    def cut(self, images: np.ndarray) -> np.ndarray:
        """Returns the tiles that the host looks at, one image after the other.

        `(images, height, width, channels)` to `(images * tiles, ...)`.
        """
        tiles = self._tiles
        return np.concatenate(
            [
                tiles.grid.cut(
                    self._prepare.value.predict_on_batch(image[np.newaxis])[0]
                )[tiles.looked_at]
                for image in images
            ]
        )

    def fit_scoring(self, data: Any) -> None:
        """Fits what the host scores by to tiles of normal images.

        Args:
            data: Whole images, as for the host's `fit_scoring`.
        """
        if isinstance(self.host, FeatureModel):
            measured = _Measured(self)
            self.host.fit_scoring(data, self.cut, measured.add)
            held_out = measured.result()
            if self.host.normal_scores(None).stand_ins:
                held_out = held_out._replace(stand_ins=len(held_out.scores))
            self._held_out = Untracked(held_out)
        else:
            batches = (images for images, _ in self.input_batches(data))
            self.host.fit_scoring(self.cut(images) for images in batches)
        self.discard_compiled()

    # === Calibration ===

    def apply_calibration(self, value: Calibration) -> None:
        """Gives a calibration to the layers that decide by it."""
        super().apply_calibration(value)
        if self.region_parts:
            self.get_layer("region_scores").calibrations = value.regions

    def normal_scores(self, data: Any, batch_size: int = 32) -> NormalScores:
        """Those of images; without any, those that `fit_scoring` measured.

        Pixels outside of the regions do not count.
        """
        if data is not None:
            measured = _Measured(self)
            for images, _ in self.input_batches(data, batch_size):
                measured.add(images)
            return measured.result()
        # Those of the host, if it has some, are of tiles.
        return self._held_out.value or super().normal_scores(None)

    def counted_pixels(self, images: Any) -> np.ndarray | None:
        """Returns which pixels lie in the regions, `(batch, height, width)`.

        As the images lie, and without their padding; None where there are
        neither regions nor padding.
        """
        if self.is_padded:
            mask = self.get_layer("padding_mask")
            inside = ops.convert_to_numpy(mask.inside(images))
            if self.regions is not None:
                inside = inside & self.regions.inside
            return inside
        if self.regions is None:
            return None
        inside = np.broadcast_to(self.regions.inside, np.shape(images)[:3])
        if self.alignment is None:
            return inside
        transforms = self.alignment(images)["transforms"]
        moved = self.get_layer("move_back")(
            inside.astype("float32"), transforms
        )
        return ops.convert_to_numpy(moved) > 0.5

    def raw_outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns raw scores and maps, also of regions."""
        outputs = self._raw.value.predict_on_batch(images)
        return {name: np.asarray(part) for name, part in outputs.items()}

    # === Config ===

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "host": keras.saving.serialize_keras_object(self.host),
        }
        # They are the host's.
        config.pop("backbone_weights", None)
        if self.regions is not None:
            config["regions"] = self.regions.to_dict()
        if self.alignment is not None:
            config["alignment"] = keras.saving.serialize_keras_object(
                self.alignment
            )
        return config

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> "InspectionModel":
        parts: dict[str, Any] = {
            name: keras.saving.deserialize_keras_object(
                config[name], custom_objects
            )
            for name in ("host", "alignment")
            if name in config
        }
        return super().from_config({**config, **parts})


def _check_host(host: Any) -> tuple[tuple[int, int], int]:
    """Returns the size and the channels of what a host looks at."""
    if not isinstance(host, AnomalyModel) or host.kind != "image":
        raise ValueError(
            f"`host` must be an AnomalyModel of images. Received: {host!r}"
        )
    if "calibration" not in {layer.name for layer in host.layers}:
        raise ValueError(
            "`host` must have one scale of scores, not one for each of several "
            f"products. Received: {host.name}, a {type(host).__name__}"
        )
    height, width, channels = host.input_shape[1:]
    if height is None or width is None:
        raise ValueError(
            "`host` must be built for one size, that of a tile. Received: "
            f"{host.name} for images of shape {host.input_shape[1:]}"
        )
    return (height, width), channels


def _in_tensorflow(model: keras.Model) -> Callable[[Any], Any]:
    """Returns a function that runs another backend's model in tf.data."""
    import tensorflow as tf

    def call(images: tf.Tensor) -> tf.Tensor:
        outputs = tf.numpy_function(
            model.predict_on_batch, [images], tf.float32
        )
        return tf.ensure_shape(outputs, images.shape)

    return call


class _Measured:
    """Raw scores of images, one after the other."""

    def __init__(self, model: InspectionModel) -> None:
        self._model = model
        self._looks: list[dict[str, np.ndarray]] = []
        self._scores: list[np.ndarray] = []
        self._pixels = PixelSample()
        self._peaks: list[float] = []
        self._of_regions: list[np.ndarray] = []

    def add(self, images: np.ndarray) -> None:
        """Scores further images."""
        model = self._model
        self._looks.append(input_statistics(images))
        for image in images:
            outputs = model.raw_outputs(image[np.newaxis])
            pixels = outputs["raw_map"][0]
            # Maps of regions lie as the reference of the alignment does.
            counted = None
            if model.is_padded:
                counted = model.counted_pixels(image[np.newaxis])
            if counted is not None:
                pixels = pixels[counted[0]]
            elif model.regions is not None:
                pixels = pixels[model.regions.inside]
            # Odd, so that not all of them lie in the same columns.
            step = -(-pixels.size // _PIXELS_PER_IMAGE) // 2 * 2 + 1
            self._scores.append(outputs["raw_score"])
            self._pixels.add(pixels.ravel()[::step])
            self._peaks.append(pixels.max())
            if model.region_parts:
                self._of_regions.append(outputs["raw_region_scores"])

    def result(self) -> NormalScores:
        """Returns all of them."""
        return NormalScores(
            np.concatenate(self._scores) if self._scores else np.empty(0),
            self._pixels.result(),
            np.array(self._peaks),
            join_statistics(self._looks),
            of_regions=np.concatenate(self._of_regions)
            if self._of_regions
            else None,
        )
