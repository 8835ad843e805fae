"""Bases of the layers that score: in float32, fitted rather than trained."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_sspcab.layers.base import ConfigLayer


class ScoringLayer(ConfigLayer):
    """A layer that computes in float32 under mixed precision too."""

    default_dtype = "float32"


class FittedLayer(ScoringLayer):
    """A layer with state that is fitted to normal data, not trained.

    The state lies in weights: it is saved with a model and becomes constants in
    an exported graph.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"trainable": False, **kwargs})

    def add_state(
        self, name: str, *shape: int, initializer: Any = "zeros", **options: Any
    ) -> keras.Variable:
        """Adds a weight that is not trained."""
        return self.add_weight(
            shape, initializer, trainable=False, name=name, **options
        )

    def require_finite(self, values: np.ndarray) -> None:
        """Raises a ValueError if one of the values to fit to is not finite."""
        num_bad = values.size - int(np.isfinite(values).sum())
        if num_bad:
            raise ValueError(
                f"{self.name} is fitted to finite values. Received: {num_bad} "
                f"of {values.size} values NaN or infinite. Has the training "
                "diverged?"
            )


class FeatureStatistics(FittedLayer):
    """A layer that is fitted to feature maps of normal images.

    Other than `fit`, a `collector` can leave out a part of the images, to score
    each by statistics of the others.
    """

    def fit(self, batches: Iterable[Any]) -> None:
        """Fits to the features of normal images, without keeping them all.

        `batches` are arrays `(images, rows, columns, channels)`, read once.
        """
        collector = self.collector()
        for features in batches:
            collector.update(features)
        self.fit_collected(collector.without())

    def collector(self) -> Any:
        """Returns what collects features, in folds that can be left out.

        It has the methods `update(features, folds)` and `without(fold)`, which
        returns what `fit_collected` takes.
        """
        raise NotImplementedError

    def fit_collected(self, collected: Any) -> None:
        """Fits to what `collector().without(fold)` has returned."""
        raise NotImplementedError

    def _require_images(self, count: int) -> None:
        if count < 1:
            raise ValueError(
                f"{self.name} needs the features of at least one normal image. "
                "Received: none"
            )


def finite_maps(features: Any) -> np.ndarray:
    """Returns features `(images, rows, columns, channels)`, checked."""
    features = np.asarray(features)
    if features.ndim != 4:
        raise ValueError(
            "Features must be an array (images, rows, columns, channels). "
            f"Received: shape {features.shape}"
        )
    if not np.isfinite(features).all():
        raise ValueError("Features must be finite. Received: NaN or infinity")
    return features
