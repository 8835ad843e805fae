"""The base of hosts that score features of a frozen, pretrained network."""

import dataclasses
import math
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import keras
import numpy as np

from keras_sspcab.hosts.base import AnomalyModel, Settings
from keras_sspcab.hosts.detector import Untracked
from keras_sspcab.hosts.feature_graph import FeatureGraph
from keras_sspcab.hosts.normal_scores import MAX_PIXELS, NormalScores
from keras_sspcab.scoring import (
    Calibration,
    input_statistics,
    join_statistics,
)
from keras_sspcab.variants import (
    SYMMETRIES,
    ImageVariants,
    shifted_copies,
)

#: Parts of the normal images, each scored by what the others tell.
NUM_FOLDS = 5

# Images that are worked at together, if they have no more values than this.
_BATCH, _LARGE = 16, 2**25


class FeatureModel(AnomalyModel):
    """Base of hosts that compare features with those of normal images.

    The features are those of a pretrained network that is not trained further.
    What is learned from normal images are statistics in the layers that score:
    `fit_scoring` gathers them, from any number of images from one on. Without a
    block there is nothing else to train, and `fit` does just that. With
    `sspcab="features"` a block learns to predict the features at each position
    from their surroundings, by its own loss alone, and how far it is off counts
    as further features.

    Calibration needs no images of its own. `fit_scoring` splits the images into
    five folds (with fewer images, one for each) and scores each fold by the
    statistics of the others; `calibrate()` measures these scores, in
    `fold_scores`. The statistics that stay are those of all images, which fit
    others a little better: thresholds are on the safe side, more so the fewer
    images there are. A block has seen all of the images, and images that are
    nearly equal but in different folds make scores too small.

    A host builds its graph from `feature_graph(...)`, on to `raw_score` and
    `raw_map`, and hands both to this constructor along with `statistics`. A
    layer that is fitted has two methods, as `PositionGaussian` and `MemoryBank`
    do: `collector()` returns an object with `update(values, folds)` and
    `without(fold)`, and `fit_collected` takes what `without` returns. A host
    that weighs several maps overrides `score_held_out`, `fit_sums` and
    `finish_scoring`.

    With a single image there are no folds. Copies of it stand in: its symmetric
    variants, if there are more than two, each scored by the statistics of the
    others; else copies that are shifted by a tenth. A threshold of these is a
    guess.

    Attributes:
        variants: What leaves a normal image normal, none by default. The
            statistics are fitted to all variants of each image.
        compares_variants: Whether `fit_scoring` also scores held-out images
            turned and mirrored, for `are_as_normal`. Defaults to False.

    Arguments that these hosts share:
        input_shape: `(height, width, channels)` with 1 or 3 channels; sides of
            at least 32.
        sspcab: `"features"` or None (the default).
        backbone: One of `keras_sspcab.backbones.available_backbones()`.
            Defaults to `"efficientnet_lite0"`.
        taps: Strides or names of layers where features are taken.
        neighborhood: Side of the square over which features are averaged.
        sigma: Standard deviation of the Gaussian that smooths the map, in
            pixels.
        weights: Those of the backbone: `"imagenet"` (the default), a file, or
            None for random ones. Read once, here; the path is not kept.
        residual: What the block gives: `"append"` (the default) or `"replace"`,
            see `feature_graph`.
        seed: Seed of what is chosen at random. Defaults to 0.

    Args:
        graph: What `feature_graph` has returned.
        statistics: Symbolic tensors by the name of the layer fitted to them.
        raw_score: Symbolic `(batch,)`.
        raw_map: Symbolic `(batch, height, width)`.
        calibration: As in `AnomalyModel`.
        name: Name of the model.

    Raises:
        ImportError: If the package with the weights is not installed.

    Example:
    >>> from keras_sspcab.applications import PatchCore
    >>> model = PatchCore((32, 32, 3), weights=None, memory_size=16)
    >>> history = model.fit(np.zeros((2, 32, 32, 3), "float32"))
    >>> model.calibrate().is_calibrated
    True
    """

    unsaved_arguments: ClassVar[tuple[str, ...]] = ("weights",)
    calibrates_by_folds: ClassVar[bool] = True
    comparison_place: ClassVar[str | None] = "features"

    # Only a block is trained, and it learns fast. The quantile is that of the
    # scores of all normal images, not of a tenth.
    default_settings: ClassVar[Settings] = {
        "model": {"sspcab": "none"},
        "training": {"epochs": 5, "batch_size": 16},
        "calibration": {"quantile": 0.95},
    }

    #: What `fit_scoring` has measured, each image by the statistics of others,
    #: in the order of the folds; None before, and in a loaded model.
    fold_scores: NormalScores | None = None

    variants = ImageVariants()
    compares_variants = False

    def __init__(
        self,
        graph: FeatureGraph,
        statistics: dict[str, Any],
        raw_score: Any,
        raw_map: Any,
        calibration: Calibration | dict[str, Any] | None,
        name: str,
        **host_outputs: Any,
    ) -> None:
        super().__init__(
            inputs=graph.image,
            outputs=self.detector_outputs(
                raw_score, raw_map, calibration, **host_outputs
            ),
            name=name,
        )
        self._statistics = untracked_model(graph.image, statistics)
        self._fitted = tuple(statistics)
        self._raw = untracked_model(
            graph.image, {"raw_score": raw_score, "raw_map": raw_map}
        )
        self._residual = Untracked(None)
        if graph.residual is not None:
            self._residual = untracked_model(
                graph.image, {"residual": graph.residual}
            )
        self.backbone_weights = graph.weights
        self._ends = Untracked((graph.maps, raw_score, raw_map))

    @property
    def backbone_maps(self) -> list[Any]:
        """What the backbone gives, symbolic, for the model's input."""
        return self._ends.value[0]

    def scoring_head(self) -> keras.Model:
        """Returns what follows the backbone, with the layers of this model.

        Its inputs are the image, of which the size counts, and
        `backbone_maps`; its outputs are raw score and raw map.
        """
        maps, raw_score, raw_map = self._ends.value
        return keras.Model([self.inputs[0], *maps], [raw_score, raw_map])

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> dict[str, Any]:
        if training and self._residual.value is not None:
            # Scores are of no use yet.
            return self._residual.value(inputs, training=True)
        return super().call(inputs, training=training, mask=mask)

    def default_losses(self) -> dict[str, Any]:
        """None: the block has its own."""
        return {}

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if self.variants != ImageVariants():
            config["variants"] = dataclasses.asdict(self.variants)
        return config

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> "FeatureModel":
        config = dict(config)
        variants = config.pop("variants", {})
        if "symmetric" in variants:
            # Files hold lists.
            symmetric = tuple(variants["symmetric"])
            variants = {**variants, "symmetric": symmetric}
        model: Any = super().from_config(config, custom_objects)
        model.variants = ImageVariants(**variants)
        return model

    # === Statistics ===

    def fit_scoring(
        self,
        data: Any,
        cut: Callable[[np.ndarray], np.ndarray] = np.asarray,
        observe: Callable[[np.ndarray], None] | None = None,
    ) -> None:
        """Fits the statistics, and scores each fold by those of the others.

        Args:
            data: Normal images, one at least: an array, or an iterable of
                batches that yields the same images each time, in any order;
                what can be read only once is kept in memory. A method
                `part(numbers)` that returns some of the images, counted in that
                order from 0, saves reading all of them for each fold.
            cut: Cuts a batch of images into the pieces that the model looks at,
                as many of each, one image after the other. By default they are
                the images.
            observe: Gets the images of each fold in batches once more, while
                the statistics are those of the others.

        Raises:
            ValueError: If there is no image, or a feature is not finite.
        """
        if not hasattr(data, "shape") and iter(data) is data:
            data = list(data)
        images = self._collect(data, self.variants, cut)
        looks, is_single = images.looks, images.folds.count == 1
        first = images.first[np.newaxis]
        views = self.variants.symmetric_of(first)
        if is_single and len(views) > 2:  # two have no spread
            data = np.concatenate(views)
            lit = dataclasses.replace(self.variants, symmetric=())
            images = self._collect(data, lit, cut)
        if images.folds.count == 1:
            data = shifted_copies(first[0])
        parts, changed = self._score_folds(images, data, cut)
        held_out = _joined(parts)
        self.fit_sums(held_out)
        if observe is not None:
            for batch in images.held_out(data, self._images):
                observe(batch)
        images.fit_layers()
        scores, pixels, peaks = self.finish_scoring(held_out)
        self.fold_scores = NormalScores(
            scores,
            pixels,
            peaks,
            join_statistics(looks),
            stand_ins=len(scores) if is_single else 0,
            changed={
                name: self.finish_scoring(_joined(part))[0]
                for name, part in changed.items()
            },
        )
        self.discard_compiled()

    def _collect(
        self, data: Any, variants: ImageVariants, cut: Any
    ) -> "_Collected":
        """Gathers the features of images and their variants, by fold."""
        collected = _Collected(
            {name: self.get_layer(name) for name in self._fitted}
        )
        for images in _rebatched(self._images(data)):
            folds = collected.add_images(images)
            for variant in variants.of(images):
                pieces = cut(variant)
                owners = np.repeat(folds, len(pieces) // len(images))
                for start in range(0, len(pieces), _BATCH):
                    rows = slice(start, start + _BATCH)
                    features = self._statistics.value.predict_on_batch(
                        pieces[rows]
                    )
                    collected.add_features(features, owners[rows])
        if not collected.num_pixels:
            raise ValueError(
                f"{self.name} needs normal images to fit its statistics to. "
                "Received: none"
            )
        return collected

    def _score_folds(self, collected: "_Collected", data: Any, cut: Any) -> Any:
        """Scores each fold by the statistics of the others.

        Returns what `score_held_out` does, of all batches and, if that is asked
        for, of the same batches turned and mirrored.
        """
        # Odd: at the usual widths an even one would skip whole columns.
        step = -(-collected.num_pixels // MAX_PIXELS) // 2 * 2 + 1
        parts: list[Any] = []
        changed: dict[str, list[Any]] = {}
        names = SYMMETRIES if self.compares_variants else ()
        for images in collected.held_out(data, self._images):
            parts += self._score_pieces(cut(images), step)
            for name in names if collected.folds.count > 1 else ():
                alone = dataclasses.replace(self.variants, symmetric=(name,))
                # Each image once, as one of its variants.
                views = np.stack(alone.symmetric_of(images)[1:])
                rows = np.arange(len(images))
                part = cut(views[rows % len(views), rows])
                scores = self._score_pieces(part, step)
                changed.setdefault(name, []).extend(scores)
        return parts, changed

    def _score_pieces(self, pieces: np.ndarray, step: int) -> list[Any]:
        return [
            self.score_held_out(pieces[start : start + _BATCH], step)
            for start in range(0, len(pieces), _BATCH)
        ]

    def _images(self, data: Any) -> Iterator[np.ndarray]:
        return (images for images, _ in self.input_batches(data))

    def score_held_out(self, images: Any, step: int) -> dict[str, np.ndarray]:
        """Scores a batch of images that the present statistics are not from.

        Keeps each `step`-th pixel. `finish_scoring` gets the arrays of all
        images, joined.
        """
        outputs = self._raw.value.predict_on_batch(images)
        maps = np.asarray(outputs["raw_map"])
        return {
            "scores": np.asarray(outputs["raw_score"]),
            "pixels": maps.ravel()[::step],
            "peaks": maps.max(axis=(1, 2)),
        }

    def fit_sums(self, held_out: dict[str, np.ndarray]) -> None:
        """Fits what weighs several maps to those of held-out images."""

    def finish_scoring(
        self, held_out: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns raw scores, pixels and peaks of held-out images."""
        return held_out["scores"], held_out["pixels"], held_out["peaks"]

    def normal_scores(self, data: Any, batch_size: int = 32) -> NormalScores:
        """Those of the images given, or without any `fold_scores`."""
        if data is not None:
            return super().normal_scores(data, batch_size)
        if self.fold_scores is None:
            raise ValueError(
                f"{self.name} has no scores of folds to calibrate with: they "
                "are not kept in files. Call `fit_scoring` first, or pass "
                "normal images. Received: data=None"
            )
        return self.fold_scores


def untracked_model(inputs: Any, outputs: Any) -> Untracked:
    """Returns a model of a part of a host's graph that predicts quickly."""
    model = keras.Model(inputs, outputs)
    if keras.config.backend() == "tensorflow":
        # Compiling takes longer than what it would save.
        model.jit_compile = False
    return Untracked(model)


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}


class _Collected:
    """Features of images by fold, for the layers that are fitted to them."""

    def __init__(self, layers: dict[str, Any]) -> None:
        self._layers = layers
        self._collectors = {
            name: layer.collector() for name, layer in layers.items()
        }
        self.folds = _Folds()
        self.num_pixels = 0
        self.looks: list[dict[str, np.ndarray]] = []

    def add_images(self, images: np.ndarray) -> np.ndarray:
        """Takes note of a batch of images; returns the fold of each."""
        if not self.num_pixels:
            self.first = images[0]
        self.num_pixels += math.prod(images.shape[:3])
        self.looks.append(input_statistics(images))
        return self.folds.assign(images)

    def add_features(self, features: dict[str, Any], folds: Any) -> None:
        for name, values in features.items():
            self._collectors[name].update(np.asarray(values), folds)

    def held_out(
        self, data: Any, read: Callable[[Any], Iterable[np.ndarray]]
    ) -> Iterator[np.ndarray]:
        """Yields batches of each fold while the layers know only the others.

        Of a single fold, images are all from elsewhere.
        """
        folds = self.folds
        for fold in range(folds.count):
            if folds.count == 1:
                self.fit_layers()
                images = read(data)
            else:
                self.fit_layers(fold)
                if hasattr(data, "part"):
                    images = read(data.part(folds.numbers_in(fold)))
                else:
                    images = folds.select(read(data), fold)
            yield from _rebatched(images)

    def fit_layers(self, left_out: int | None = None) -> None:
        """Fits the layers to all of the images but a fold."""
        for name, layer in self._layers.items():
            layer.fit_collected(self._collectors[name].without(left_out))


class _Folds:
    """Which fold an image is of, known by a checksum: equal ones are in one."""

    def __init__(self) -> None:
        self._folds: dict[int, int] = {}
        # Of all images, in order.
        self._assigned: list[int] = []

    @property
    def count(self) -> int:
        """Number of folds that have images."""
        return min(len(self._folds), NUM_FOLDS)

    def assign(self, images: np.ndarray) -> np.ndarray:
        """Returns the folds of further images, new ones in turn."""
        folds = [
            self._folds.setdefault(
                _checksum(image), len(self._folds) % NUM_FOLDS
            )
            for image in images
        ]
        self._assigned += folds
        return np.array(folds)

    def numbers_in(self, fold: int) -> np.ndarray:
        """Returns which of the images that were assigned are in a fold."""
        return np.flatnonzero(np.array(self._assigned) == fold)

    def select(
        self, batches: Iterable[np.ndarray], fold: int
    ) -> Iterator[np.ndarray]:
        """Yields the images of a fold; unknown ones are taken in turn."""
        number = 0
        for images in batches:
            known = [self._folds.get(_checksum(image)) for image in images]
            if None in known and number == 0:
                warnings.warn(
                    "The normal images differ each time they are read, so "
                    "that they cannot be held out: thresholds may be too low. "
                    "Call `fit_scoring` with images that are not changed at "
                    "random.",
                    stacklevel=4,
                )
            turns = np.arange(number, number + len(images)) % self.count
            number += len(images)
            folds = [
                turn if own is None else own
                for own, turn in zip(known, turns, strict=True)
            ]
            yield np.asarray(images)[np.array(folds) == fold]


def _checksum(image: Any) -> int:
    return zlib.crc32(np.asarray(image).tobytes())


def _rebatched(batches: Iterable[Any]) -> Iterator[np.ndarray]:
    """Yields batches of one size, for which functions are traced only once.

    Large images come in smaller ones.
    """
    waiting: list[np.ndarray] = []
    for images in batches:
        for image in np.asarray(images):
            if waiting and waiting[0].shape != image.shape:
                yield np.stack(waiting)
                waiting = []
            waiting.append(image)
            if len(waiting) * image.size >= _LARGE or len(waiting) == _BATCH:
                yield np.stack(waiting)
                waiting = []
    if waiting:
        yield np.stack(waiting)
