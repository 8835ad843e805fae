"""The frame that all hosts share: build, compile, fit, calibrate, predict."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_sspcab.scoring import CalibratedScores, Calibration

# Pixels kept for the quantile of the map, at most; 40 MB as float32.
_MAX_PIXELS = 10_000_000


class AnomalyModel(keras.Model):
    """An anomaly detector: images in, scores, maps and flags out.

    The five lines are the same for every host:

    >>> model = AutoEncoder(input_shape=(64, 64, 1))
    >>> model.compile()
    >>> model.fit(normal_images)
    >>> model.calibrate(more_normal_images)
    >>> model.predict(images)["is_anomalous"]

    Images are float tensors `(batch, height, width, channels)` in [0, 1], in
    training, in `predict` and in every export.

    A host is a functional model. Its constructor builds the graph from its
    arguments, passes raw score and raw map through `self.detector_outputs`, and
    hands inputs and outputs to `super().__init__`. It then sets
    `self.arguments` to its constructor arguments, and overrides what differs:
    `default_optimizer`, `default_losses`, `training_targets`, and
    `prepare_training_data` where training examples are made from normal images.

    Outputs of `predict`, a dict of arrays:
        anomaly_score: `(batch,)` float32, in standard deviations above the mean
            of the normal images that calibrated the model.
        anomaly_map: `(batch, height, width)` float32, likewise for pixels.
        is_anomalous: `(batch,)` bool, score at or above the threshold.
        raw_score: `(batch,)` float32, the score before normalisation.
        others: what the host adds, such as `reconstruction`.
    """

    #: What the host looks at: "image" or "video".
    kind: ClassVar[str] = "image"

    arguments: dict[str, Any]

    @staticmethod
    def detector_outputs(
        raw_score: Any,
        raw_map: Any,
        calibration: Calibration | dict[str, Any] | None,
        **host_outputs: Any,
    ) -> dict[str, Any]:
        """Returns the outputs of a host, the shared ones first."""
        scores = CalibratedScores(calibration, name="calibration")(
            raw_score, raw_map
        )
        return {**scores, "raw_score": raw_score, **host_outputs}

    # === What a host decides ===

    def default_optimizer(self) -> keras.optimizers.Optimizer:
        """The optimiser of the host's paper, used when none is given."""
        return keras.optimizers.Adam(1e-3)

    def default_losses(self) -> dict[str, Any]:
        """Keras losses by output name, used when none is given."""
        raise NotImplementedError

    def training_targets(self, x: Any, y: Any) -> dict[str, Any]:
        """Targets by output name, from what the training data yields."""
        raise NotImplementedError

    def prepare_training_data(self, data: Any) -> Any:
        """Turns a dataset of normal images into training examples."""
        return data

    # === What they share ===

    def compile(
        self, optimizer: Any = None, loss: Any = None, **kwargs: Any
    ) -> None:
        """Configures training, by default as the host's paper does.

        Args:
            optimizer: As in `keras.Model.compile`; None takes
                `default_optimizer()`.
            loss: As in `keras.Model.compile`, a dict by output name; None takes
                `default_losses()`. The terms of the blocks are added anyway.
            **kwargs: Passed on.
        """
        super().compile(
            optimizer=self.default_optimizer()
            if optimizer is None
            else optimizer,
            loss=self.default_losses() if loss is None else loss,
            **kwargs,
        )

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as it was when it was saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            # So that its state can be loaded as well.
            self.optimizer.build(self.trainable_variables)

    def fit(self, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
        """Trains on normal images; arguments as in `keras.Model.fit`.

        Args:
            x: Normal images: an array or a dataset of batches.
            y: Targets, for hosts that take them; None (the rule) derives them
                from the images.
            **kwargs: Passed on.

        Returns:
            The `History`. Besides `loss` it holds `sspcab_loss`, the part of
            it that is due to the blocks.
        """
        if y is None:
            x = self.prepare_training_data(x)
        if not hasattr(x, "shape"):
            # Datasets bring their own order; Keras warns about its default.
            kwargs.setdefault("shuffle", False)
        return super().fit(x, y, **kwargs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        targets, predictions = self._matched(x, y, y_pred)
        return super().compute_loss(
            x, targets, predictions, sample_weight, training
        )

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        targets, predictions = self._matched(x, y, y_pred)
        return super().compute_metrics(x, targets, predictions, sample_weight)

    def _matched(
        self, x: Any, y: Any, y_pred: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Targets, and the outputs that they are for."""
        targets = self.training_targets(x, y)
        return targets, {name: y_pred[name] for name in targets}

    @property
    def calibration(self) -> Calibration:
        """Scale and thresholds; set a new one to change them."""
        return self.get_layer("calibration").calibration

    @calibration.setter
    def calibration(self, value: Calibration) -> None:
        self.get_layer("calibration").calibration = value
        # Compiled functions hold the old numbers as constants.
        self.predict_function = None
        self.test_function = None

    def calibrate(
        self,
        data: Any,
        quantile: float = 0.99,
        pixel_quantile: float = 0.999,
        batch_size: int = 32,
    ) -> Calibration:
        """Measures what is normal, on images that were not trained on.

        Sets the scale of scores and maps and both thresholds. They are stored
        in the model, and with it in `.keras` files and exports.

        Args:
            data: Normal images: an array, or an iterable (such as a
                `tf.data.Dataset`) of batches; tuples count by their first part.
            quantile: Share of the images that shall lie below the threshold:
                `1 - quantile` is the rate of false alarms to expect. With few
                images the largest score decides. Defaults to 0.99.
            pixel_quantile: The same for pixels of the map.
            batch_size: Batch size for arrays.

        Returns:
            The new calibration, also at `self.calibration`.

        Raises:
            ValueError: If there is no image, or a score is not finite.
        """
        # Maps come out in the scale of the present calibration.
        present = self.calibration
        scores: list[np.ndarray] = []
        maps: list[np.ndarray] = []
        for images in _batches(data, batch_size):
            outputs = self.predict_on_batch(images)
            scores.append(np.asarray(outputs["raw_score"]))
            normalised = np.asarray(outputs["anomaly_map"])
            maps.append(normalised * present.map_std + present.map_mean)
        self.calibration = Calibration.measure(
            np.concatenate(scores) if scores else np.empty(0),
            _thin_out(maps, _MAX_PIXELS),
            quantile,
            pixel_quantile,
        )
        return self.calibration

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Scores images; see the class for the outputs.

        Warns where the model has not been calibrated: its scores are raw then
        and nothing is flagged.
        """
        if not self.calibration.is_calibrated:
            warnings.warn(
                f"{self.name} has not been calibrated: scores are raw and "
                "`is_anomalous` is never set. Call `calibrate` with normal "
                "images first.",
                stacklevel=2,
            )
        return super().predict(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        # Not the functional graph: the constructor builds it again.
        return {
            **self.arguments,
            "name": self.name,
            "calibration": self.calibration.to_dict(),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> "AnomalyModel":
        return cls(**config)


def _batches(data: Any, batch_size: int) -> Iterable[Any]:
    """Yields batches of images from an array or an iterable of batches."""
    if hasattr(data, "shape"):
        for start in range(0, len(data), batch_size):
            yield data[start : start + batch_size]
        return
    for batch in data:
        if isinstance(batch, Mapping):
            raise ValueError(
                "Calibration data must yield batches of images, or tuples "
                "that begin with one. Received a dict with the keys "
                f"{sorted(batch)}"
            )
        images = batch[0] if isinstance(batch, (tuple, list)) else batch
        yield ops.convert_to_numpy(images)


def _thin_out(maps: list[np.ndarray], limit: int) -> np.ndarray:
    """Returns at most about `limit` values, evenly spread over the maps."""
    if not maps:
        return np.empty(0, "float32")
    step = max(1, -(-sum(part.size for part in maps) // limit))
    return np.concatenate([part.ravel()[::step] for part in maps])
