"""The frame of hosts that score features of a frozen, pretrained network."""

import dataclasses
import math
import os
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import layers, ops

from keras_sspcab.backbones import describe_weights, load_backbone
from keras_sspcab.checks import standardize_choice, standardize_int
from keras_sspcab.hosts.arguments import check_input_shape, check_places
from keras_sspcab.hosts.base import MAX_PIXELS, AnomalyModel
from keras_sspcab.hosts.batches import image_batches
from keras_sspcab.layers import SSPCABLayer
from keras_sspcab.scoring import Calibration

PLACES = ("features",)
RESIDUALS = ("append", "replace")

#: Parts of the normal images, each scored by what the others tell.
NUM_FOLDS = 5

# Images that are worked at together.
_BATCH = 16

# Large enough for networks that lose some pixels at the border.
_PROBE = 512


@dataclasses.dataclass(frozen=True)
class FeatureGraph:
    """What `feature_graph` has built.

    Attributes:
        image: The symbolic input.
        features: `(batch, rows, columns, channels)`, the residual included; a
            list of these for several groups of taps.
        residual: What the block could not predict; None without a block.
        arguments: For the config of the host.
        weights: Where those of the backbone come from.
    """

    image: Any
    features: Any
    residual: Any
    arguments: dict[str, Any]
    weights: dict[str, str | None]


@dataclasses.dataclass(frozen=True)
class FoldScores:
    """Raw scores of the normal images that the statistics come from.

    Attributes:
        scores: One an image, in the order of the folds.
        pixels: Values of their raw maps, a part of them where there are many.
        are_held_out: Whether each image was scored by the statistics of others.
            With a single image there are none: its own score says little about
            those of other normal images.
    """

    scores: np.ndarray
    pixels: np.ndarray
    are_held_out: bool


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
    `fold_scores`. The statistics that stay are those of all images. Those of
    four fifths of them fit held-out images a little less well, so that the
    scores are a little too large: thresholds are on the safe side, more so the
    fewer images there are. A block has seen all of the images, and images that
    are nearly equal but in different folds make scores too small.

    A host builds its graph from `feature_graph(...)`, on to `raw_score` and
    `raw_map`, and hands both to this constructor along with `statistics`: for
    each layer that is fitted, by its name, the tensor that it is fitted to.
    Such a layer has two methods, as `PositionGaussian` and `MemoryBank` do:
    `collector(num_folds)` returns an object with `update(values, folds)` and
    `without(fold)`, and `fit_collected` takes what `without` returns.

    Hosts that need more override these:

    - `collectors(num_folds)`: what gathers each tensor in `statistics`.
    - `set_statistics(collected)`: sets the weights from what was gathered. It
      is called once for each fold and at last for all images.
    - `score_held_out(images, step)`: what to keep of images of the fold that
      was left out, as arrays by name, which are then joined along their first
      axis. The default keeps raw scores and a part of the raw maps.
    - `finish_scoring(held_out)`: makes scores and pixels from these, when the
      statistics of all images are set. A host that weighs several maps keeps
      them in `score_held_out` and finds their scales here.

    Args:
        graph: What `feature_graph` has returned.
        statistics: Symbolic tensors by the name of the layer fitted to them.
        raw_score: Symbolic `(batch,)`.
        raw_map: Symbolic `(batch, height, width)`.
        calibration: A `Calibration`; set by `calibrate`.
        arguments: What the constructor of the host takes, besides what
            `feature_graph` does.
        name: Name of the model.
        **host_outputs: Further outputs.
    """

    calibrates_by_folds: ClassVar[bool] = True
    comparison_place: ClassVar[str | None] = "features"

    # Only a block is trained, and it learns fast. The quantile is that of the
    # scores of all normal images, not of a tenth.
    default_settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "model": {"sspcab": "none"},
        "training": {"epochs": 5, "batch_size": 16},
        "calibration": {"quantile": 0.95},
    }

    #: What `fit_scoring` found; None before, and in a loaded model.
    fold_scores: FoldScores | None

    def __init__(
        self,
        graph: FeatureGraph,
        statistics: dict[str, Any],
        raw_score: Any,
        raw_map: Any,
        calibration: Calibration | dict[str, Any] | None,
        arguments: dict[str, Any],
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
        self._collect = predictor(graph.image, statistics)
        self._fitted = tuple(statistics)
        self._score = predictor(
            graph.image, {"raw_score": raw_score, "raw_map": raw_map}
        )
        self._predict_features = None
        if graph.residual is not None:
            self._predict_features = keras.Model(
                graph.image, {"residual": graph.residual}
            ).__call__
        self.backbone_weights = graph.weights
        self.fold_scores = None
        self.arguments = {**graph.arguments, **arguments}

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> dict[str, Any]:
        if training and self._predict_features is not None:
            # Scores are of no use yet.
            return self._predict_features(inputs, training=True)
        return super().call(inputs, training=training, mask=mask)

    def default_losses(self) -> dict[str, Any]:
        """None: the block has its own."""
        return {}

    def training_targets(self, x: Any, y: Any) -> dict[str, Any]:
        """None."""
        return {}

    # === Statistics ===

    def fit_scoring(self, data: Any) -> None:
        """Fits the statistics, and scores each fold by those of the others.

        Args:
            data: Normal images, one at least: an array, or an iterable of
                batches. It is read several times, in any order, and must yield
                the same images each time; what can be read only once is kept
                in memory.

        Raises:
            ValueError: If there is no image, or a feature is not finite.
        """
        if not hasattr(data, "shape") and iter(data) is data:
            data = list(image_batches(data))
        folds = _Folds()
        collectors = self.collectors(NUM_FOLDS)
        num_pixels = 0
        for images in _rebatched(image_batches(data)):
            numbers = folds.assign(images)
            for name, values in self._collect(images).items():
                collectors[name].update(np.asarray(values), numbers)
            num_pixels += math.prod(images.shape[:3])
        if not num_pixels:
            raise ValueError(
                f"{self.name} needs normal images to fit its statistics to. "
                "Received: none"
            )
        # Odd, so that not all of them lie in the same columns.
        step = -(-num_pixels // MAX_PIXELS) // 2 * 2 + 1
        parts = []
        for fold in range(folds.count):
            left_out = fold if folds.count > 1 else None
            self.set_statistics(
                {key: c.without(left_out) for key, c in collectors.items()}
            )
            for images in _rebatched(folds.select(image_batches(data), fold)):
                parts.append(self.score_held_out(images, step))
        self.set_statistics({key: c.without() for key, c in collectors.items()})
        held_out = {
            key: np.concatenate([part[key] for part in parts])
            for key in parts[0]
        }
        scores, pixels = self.finish_scoring(held_out)
        self.fold_scores = FoldScores(scores, pixels, folds.count > 1)
        # Compiled functions may hold what was fitted before as constants.
        self.predict_function = None
        self.test_function = None

    def collectors(self, num_folds: int) -> dict[str, Any]:
        """Returns what gathers the statistics, by the name of their layer.

        Args:
            num_folds: In how many parts, each of which can be left out.
        """
        return {
            name: self.get_layer(name).collector(num_folds)
            for name in self._fitted
        }

    def set_statistics(self, collected: dict[str, Any]) -> None:
        """Fits the layers.

        Args:
            collected: What their collectors have gathered, by name.
        """
        for name, values in collected.items():
            self.get_layer(name).fit_collected(values)

    def score_held_out(self, images: Any, step: int) -> dict[str, np.ndarray]:
        """Scores images that the present statistics are not from.

        Args:
            images: A batch.
            step: Every how many pixels one is enough.

        Returns:
            Arrays by name, which `finish_scoring` gets for all images.
        """
        outputs = self._score(images)
        return {
            "scores": np.asarray(outputs["raw_score"]),
            "pixels": np.asarray(outputs["raw_map"]).ravel()[::step],
        }

    def finish_scoring(
        self, held_out: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns raw scores and pixels of raw maps of held-out images.

        Args:
            held_out: What `score_held_out` has kept, joined.
        """
        return held_out["scores"], held_out["pixels"]

    def calibrate(
        self,
        data: Any = None,
        quantile: float = 0.95,
        pixel_quantile: float = 0.999,
        batch_size: int = 32,
    ) -> Calibration:
        """Measures what is normal, by default on the images of `fit_scoring`.

        Args:
            data: Normal images that the statistics are not from, as in
                `AnomalyModel.calibrate`; None takes `fold_scores`.
            quantile: Share of the images that shall lie below the threshold.
                Defaults to 0.95, as the scores of all images are at hand.
            pixel_quantile: The same for pixels of the map.
            batch_size: Batch size for arrays.

        Returns:
            The new calibration, also at `self.calibration`.

        Raises:
            ValueError: If there is no image, or a score is not finite.
        """
        if data is not None:
            return super().calibrate(data, quantile, pixel_quantile, batch_size)
        if self.fold_scores is None:
            raise ValueError(
                f"{self.name} has no scores of folds to calibrate with: they "
                "are not kept in files. Call `fit_scoring` first, or pass "
                "normal images. Received: data=None"
            )
        self.calibration = Calibration.measure(
            self.fold_scores.scores,
            self.fold_scores.pixels,
            quantile,
            pixel_quantile,
        )
        return self.calibration


def feature_graph(
    input_shape: Sequence[int | None],
    sspcab: str | Sequence[str] | None = None,
    backbone: str = "efficientnet_lite0",
    taps: Sequence[int | str] | Sequence[Sequence[int | str]] = (8, 16),
    weights: str | os.PathLike | None = "imagenet",
    neighborhood: int | Sequence[int] = 3,
    residual: str = "append",
    sspcab_options: dict[str, Any] | None = None,
) -> FeatureGraph:
    """Builds the graph from images to features.

    The maps of the taps are each averaged over a neighborhood, brought to the
    grid of the finest by repeating values, and joined.

    With a block, features are standardized for each channel, by mean and
    variance as they come in training, before it predicts them.

    Args:
        input_shape: `(height, width, channels)` with 1 or 3 channels; sides of
            at least 32, or None.
        sspcab: `"features"` or None.
        backbone: As `name` of `load_backbone`.
        taps: As for `load_backbone`, or several groups of them. Each group
            gives features on the grid of its finest tap; a block predicts those
            of the first group.
        weights: As for `load_backbone`.
        neighborhood: Odd integer, side of the square over which the features of
            a tap are averaged; 1 leaves them. One for each group, where there
            are several. At the border only what lies inside counts.
        residual: `"append"` joins features and what the block could not
            predict, `"replace"` keeps the latter alone.
        sspcab_options: Arguments of the `SSPCABLayer`. Features have signs, so
            its activation is None unless given.

    Returns:
        The symbolic tensors, and what a host keeps of the arguments.

    Raises:
        ValueError: If an argument is out of its range.
        ImportError: If the package with the weights is not installed.
        OSError: If the weights cannot be downloaded.
    """
    shape = check_input_shape(input_shape, minimum=32)
    places = check_places(sspcab, PLACES)
    residual = standardize_choice(residual, RESIDUALS, "residual")
    has_groups = any(isinstance(tap, (list, tuple)) for tap in taps)
    groups: Any = taps if has_groups else (taps,)
    sizes = (
        (neighborhood,) * len(groups)
        if isinstance(neighborhood, int)
        else tuple(neighborhood)
    )
    for size in sizes:
        if standardize_int(size, "neighborhood", 1) % 2 == 0:
            raise ValueError(
                "The `neighborhood` argument must be odd. "
                f"Received: neighborhood={neighborhood}"
            )
    image = keras.Input(shape, name="image")
    features, *others = _joined_groups(image, groups, sizes, backbone, weights)
    predicted_part = None
    if places:
        features = layers.BatchNormalization(
            # Trainings are short.
            momentum=0.9,
            center=False,
            scale=False,
            name="standardization",
        )(features)
        block = {
            "activation": None,
            "data_format": "channels_last",
            "name": "sspcab_features",
            **(sspcab_options or {}),
        }
        predicted_part = layers.Subtract(name="residual")(
            [features, SSPCABLayer(**block)(features)]
        )
        features = (
            predicted_part
            if residual == "replace"
            else layers.Concatenate(name="features")([features, predicted_part])
        )
    return FeatureGraph(
        image,
        [features, *others] if has_groups else features,
        predicted_part,
        {
            "input_shape": shape,
            "sspcab": places or None,
            "backbone": backbone,
            "neighborhood": neighborhood,
            "residual": residual,
            "sspcab_options": sspcab_options,
        },
        describe_weights(backbone, weights),
    )


@keras.saving.register_keras_serializable(package="keras_sspcab")
class NearestAlignment(keras.layers.Layer):
    """Repeats the values of a coarse map, to the grid of a finer one.

    Args:
        factor: Cells of the finer grid that a value stands for, along each
            axis. Where there are more of them, the last value goes on.
        **kwargs: Base layer keyword arguments.

    Call arguments:
        inputs: Tensor `(batch, rows, columns, channels)`.
        reference: Tensor of the grid wanted.
    """

    def __init__(self, factor: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = standardize_int(factor, "factor", 1)

    def call(self, inputs: Any, reference: Any) -> Any:
        have, wanted = ops.shape(inputs), ops.shape(reference)
        for axis in (1, 2):
            places = self._places(wanted[axis], have[axis])
            inputs = ops.take(inputs, places, axis=axis)
        return inputs

    def _places(self, wanted: Any, have: Any) -> Any:
        if isinstance(wanted, int) and isinstance(have, int):
            # A constant in the graph.
            places = np.minimum(np.arange(wanted) // self.factor, have - 1)
            return places.astype("int32")
        places = ops.arange(wanted, dtype="int32") // self.factor
        return ops.minimum(places, have - 1)

    def compute_output_shape(
        self,
        inputs_shape: tuple[int | None, ...],
        reference_shape: tuple[int | None, ...],
    ) -> tuple[int | None, ...]:
        return (inputs_shape[0], *reference_shape[1:3], inputs_shape[3])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


def _joined_groups(
    image: Any,
    groups: Sequence[Sequence[int | str]],
    neighborhoods: Sequence[int],
    backbone: str,
    weights: Any,
) -> list[Any]:
    """Joins the maps of each group of taps on the grid of its finest."""
    taps = list(dict.fromkeys(tap for group in groups for tap in group))
    network = load_backbone(backbone, taps, weights, image.shape[-1])
    probe = network.compute_output_spec(
        keras.KerasTensor((1, _PROBE, _PROBE, image.shape[-1]), image.dtype)
    )
    sides = [spec.shape[1] for spec in keras.tree.flatten(probe)]
    maps = keras.tree.flatten(network(image))
    return [
        _joined(
            [taps.index(tap) for tap in group],
            maps,
            sides,
            size,
            "taps" if len(groups) == 1 else f"taps{index}",
        )
        for index, (group, size) in enumerate(
            zip(groups, neighborhoods, strict=True)
        )
    ]


def _joined(
    members: list[int],
    maps: list[Any],
    sides: list[int],
    neighborhood: int,
    name: str,
) -> Any:
    """Joins some of the maps on the grid of the finest of them."""
    finest = max(members, key=lambda index: sides[index])
    aligned = []
    for index in members:
        x = average(maps[index], neighborhood, f"{name}_neighborhood{index}")
        if sides[index] < sides[finest]:
            factor = round(sides[finest] / sides[index])
            x = NearestAlignment(factor, name=f"{name}_aligned{index}")(
                x, maps[finest]
            )
        aligned.append(x)
    if len(aligned) == 1:
        return aligned[0]
    return layers.Concatenate(name=name)(aligned)


def average(features: Any, size: int, name: str) -> Any:
    """Averages features over squares; at the border only what lies inside.

    Args:
        features: Symbolic `(batch, rows, columns, channels)`.
        size: Side of the squares, odd; 1 leaves the features.
        name: Name of the layer.
    """
    if size == 1:
        return features
    return layers.AveragePooling2D(
        size,
        strides=1,
        padding="same",
        data_format="channels_last",
        name=name,
    )(features)


def predictor(image: Any, outputs: dict[str, Any]) -> Any:
    """Returns a function from batches of images to some tensors of a graph.

    A function, as Keras would take a model for a part of the host.
    """
    model = keras.Model(image, outputs)
    if keras.config.backend() == "tensorflow":
        # Compiling takes longer than what it would save.
        model.jit_compile = False
    return model.predict_on_batch


class _Folds:
    """Which fold an image is of, whatever the order in which images come.

    Images are known by a checksum, so that equal ones are in one fold.
    """

    def __init__(self) -> None:
        self._folds: dict[int, int] = {}

    @property
    def count(self) -> int:
        """Number of folds that have images."""
        return min(len(self._folds), NUM_FOLDS)

    def assign(self, images: np.ndarray) -> np.ndarray:
        """Returns the folds of images, new ones in turn."""
        return np.array(
            [
                self._folds.setdefault(
                    _checksum(image), len(self._folds) % NUM_FOLDS
                )
                for image in images
            ]
        )

    def select(
        self, batches: Iterable[np.ndarray], fold: int
    ) -> Iterator[np.ndarray]:
        """Yields the images of a fold.

        Those not seen before, where images are changed at random, are taken in
        turn, and a warning says so.
        """
        number = 0
        for images in batches:
            known = [self._folds.get(_checksum(image)) for image in images]
            if None in known and number == 0:
                warnings.warn(
                    "The normal images are others each time they are read, so "
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
    """Yields batches of one size, for which functions are traced only once."""
    waiting: list[np.ndarray] = []
    for images in batches:
        for image in np.asarray(images):
            if waiting and waiting[0].shape != image.shape:
                yield np.stack(waiting)
                waiting = []
            waiting.append(image)
            if len(waiting) == _BATCH:
                yield np.stack(waiting)
                waiting = []
    if waiting:
        yield np.stack(waiting)
