"""Which of several products an image shows, by its features."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sspcab.layers.base import Shape
from keras_sspcab.scoring.base import FittedLayer
from keras_sspcab.scoring.false_alarms import limit_of
from keras_sspcab.scoring.memory_bank import place_of_least

# How much farther than normal images one may be that is still taken for the
# product: defects move the mean of the features as well.
_MARGIN = 1.5

# Images that the spread of a product is taken from the others for, so that few
# are enough.
_BORROWED = 10

# With a single image, what is far is not known.
_ANY = 1e6


@dataclasses.dataclass(frozen=True)
class Recognition:
    """How well held-out images of the products were told apart.

    Attributes:
        num_images: How many images of each product were looked at.
        num_correct: How many of them were taken for what they are.
        num_unknown: How many of them resembled none of the products.

    Example:
    >>> Recognition({"nut": 4}, {"nut": 3}, {"nut": 1}).accuracy
    0.75
    """

    num_images: dict[str, int]
    num_correct: dict[str, int]
    num_unknown: dict[str, int]

    @property
    def accuracy(self) -> float:
        """Share of all images whose product was recognized."""
        total = sum(self.num_images.values())
        return sum(self.num_correct.values()) / max(1, total)

    @classmethod
    def count(
        cls, products: Sequence[str], found: Mapping[str, np.ndarray]
    ) -> "Recognition":
        """Counts what images of each product were taken for, by index."""
        return cls(
            {name: len(indices) for name, indices in found.items()},
            {
                name: int(np.sum(indices == products.index(name)))
                for name, indices in found.items()
            },
            {name: int(np.sum(n < 0)) for name, n in found.items()},
        )

    def describe(self) -> str:
        """Says how well products are told apart."""
        total = sum(self.num_images.values())
        unknown = sum(self.num_unknown.values())
        return (
            f"Of {total} images, {100 * self.accuracy:.3g} % were taken for "
            "the product that they show"
            f"{f', {unknown} for none of them' if unknown else ''}."
        )


class ProductRecognition(FittedLayer):
    """Tells products apart by means of features.

    Each product has a Gaussian with independent dimensions, and an image is
    taken for the product of the highest density. Its distance to that, in
    standard deviations, is about 1 for a normal image.

    Args:
        num_products: How many there are.

    Call arguments:
        inputs: Tensor `(batch, dimensions)`.
        told: Tensor `(batch,)` int32, indices of products that count instead;
            below 0 for the one that is recognized. None (the default) for
            those of all.

    Output:
        Index of the product, -1 for unknown, and that of the product which
        scores the image, the nearest of an unknown one: both `(batch,)` int32.
    """

    config_names = ("num_products",)

    def __init__(self, num_products: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_products = num_products

    def build(self, input_shape: Shape) -> None:
        (size,) = self.fix_sizes(input_shape, -1)
        shape = self.num_products, size
        self.means = self.add_state("means", *shape)
        self.scales = self.add_state("scales", *shape, initializer="ones")
        self.spreads = self.add_state("spreads", self.num_products)
        self.limits = self.add_state(
            "limits", self.num_products, initializer="ones"
        )

    def call(self, inputs: Any, told: Any = None) -> tuple[Any, Any]:
        differences = ops.expand_dims(inputs, 1) - self.means
        squares = ops.square(differences * self.scales)
        found, nearest = self._decide(ops.mean(squares, axis=-1))
        if told is None:
            return found, nearest
        # An index that no product has is unknown.
        is_known = ops.logical_and(told >= 0, told < self.num_products)
        product = ops.where(told < 0, found, ops.where(is_known, told, -1))
        return product, ops.where(is_known, told, nearest)

    def _decide(self, squares: Any) -> tuple[Any, Any]:
        surprise = squares + self.spreads
        nearest = place_of_least(surprise)
        is_near = ops.less_equal(
            ops.min(surprise, axis=1) - ops.take(self.spreads, nearest),
            ops.take(self.limits, nearest),
        )
        return ops.where(is_near, nearest, -1), nearest

    def fit(self, embeddings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Fits to embeddings of normal images, an array for each product.

        Returns what each image is taken for where the mean of its product is
        that of the others.
        """
        parts = [np.asarray(part, "float64") for part in embeddings]
        counts = np.array([len(part) for part in parts])[:, np.newaxis]
        means = np.stack([part.mean(axis=0) for part in parts])
        sums = np.stack(
            [np.square(p - m).sum(0) for p, m in zip(parts, means, strict=True)]
        )
        shared = sums.sum(axis=0) / max(counts.sum() - len(parts), 1)
        if not shared.any():
            # Single images: the differences of products are all there is.
            shared = np.concatenate(parts).var(axis=0)
        variances = (sums + _BORROWED * shared) / (counts - 1 + _BORROWED)
        variances += 0.01 * variances.mean(axis=1, keepdims=True) + 1e-12
        spreads = np.log(variances).mean(axis=1)
        self.means.assign(means)
        self.scales.assign(1 / np.sqrt(variances))
        self.spreads.assign(spreads)
        limits, held_out = [], []
        for number, part in enumerate(parts):
            differences = part[:, np.newaxis] - means
            # As far as it is from the mean of the others.
            differences[:, number] *= len(part) / max(len(part) - 1, 1)
            squares = (np.square(differences) / variances).mean(axis=-1)
            held_out.append(squares)
            own = np.sqrt(squares[:, number])
            limit = limit_of(own, 0.999) if len(part) > 1 else _ANY
            limits.append(np.square(_MARGIN * limit))
        self.limits.assign(limits)
        return [np.array(self._decide(s.astype("f4"))[0]) for s in held_out]

    def compute_output_spec(self, inputs: Any, told: Any = None) -> Any:
        spec = keras.KerasTensor(inputs.shape[:1], "int32")
        return spec, keras.KerasTensor(inputs.shape[:1], "int32")
