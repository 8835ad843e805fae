"""The frame that all hosts share: build, compile, fit, calibrate, predict."""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import keras
import numpy as np

from keras_sspcab.hosts.batches import image_batches, thin_out
from keras_sspcab.hosts.guide import HostGuide
from keras_sspcab.layers import SSPCABLayer
from keras_sspcab.scoring import CalibratedScores, Calibration

#: Pixels kept for the quantile of the map, at most; 40 MB as float32.
MAX_PIXELS = 10_000_000


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
    `default_optimizer`, `default_losses`, `training_targets`,
    `prepare_training_data` where training examples are made from normal images,
    and `fit_scoring` where the score needs more than trained weights.

    Outputs of `predict`, a dict of arrays:
        anomaly_score: `(batch,)` float32, in standard deviations above the mean
            of the normal images that calibrated the model.
        anomaly_map: `(batch, height, width)` float32, likewise for pixels.
        is_anomalous: `(batch,)` bool, score at or above the threshold.
        raw_score: `(batch,)` float32, the score before normalization.
        others: what the host adds, such as `reconstruction`.
    """

    #: What the host looks at: "image", "video" or "objects" (of videos).
    kind: ClassVar[str] = "image"

    #: Whether `input_shape` begins with a number of frames.
    takes_frames: ClassVar[bool] = False

    #: What helps to choose the host, for `keras-sspcab models`.
    guide: ClassVar[HostGuide] = HostGuide()

    #: Settings of a run that suit the host, by section ("data", "model",
    #: "training", "calibration", "evaluation"). What a host does not name is as
    #: its base class has it.
    default_settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    #: Where `keras-sspcab compare` puts the block; None leaves it to the host.
    comparison_place: ClassVar[str | None] = None

    #: Whether `calibrate` needs no images besides those of `fit_scoring`.
    calibrates_by_folds: ClassVar[bool] = False

    #: Where the weights of a pretrained network come from, as plain values.
    backbone_weights: dict[str, str | None] | None = None

    arguments: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        inherited = super(cls, cls).default_settings
        own = cls.default_settings
        cls.default_settings = {
            name: {**inherited.get(name, {}), **own.get(name, {})}
            for name in {**inherited, **own}
        }

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

    def default_optimizer(
        self, learning_rate: float | None = None, steps: int | None = None
    ) -> keras.optimizers.Optimizer:
        """The optimizer of the host's paper, used when none is given.

        Args:
            learning_rate: The rate to begin with; None takes the paper's.
            steps: Length of the training, over which the rate follows the
                paper's schedule; None leaves it constant.
        """
        return keras.optimizers.Adam(learning_rate or 1e-3)

    def default_losses(self) -> dict[str, Any]:
        """Keras losses by output name, used when none is given."""
        raise NotImplementedError

    def training_targets(self, x: Any, y: Any) -> dict[str, Any]:
        """Targets by output name, from what the training data yields."""
        raise NotImplementedError

    def prepare_training_data(self, data: Any) -> Any:
        """Turns a dataset of normal images into training examples.

        Args:
            data: A `tf.data.Dataset` of batches of images.

        Returns:
            A dataset of as many pairs of inputs and targets, as
            `training_targets` takes them. Random numbers follow from numpy's
            global generator, which `keras.utils.set_random_seed` seeds.
        """
        return data

    def fit_scoring(self, data: Any) -> None:
        """Fits what the score needs besides the trained weights.

        Called after the training and before `calibrate`: by `fit` with its own
        images, by the command line with all training images.

        Args:
            data: The normal training images, as they are: an array or an
                iterable of batches.
        """

    def value_range(self, input_name: str) -> tuple[float, float] | None:
        """Lowest and highest value of an input; None where nothing bounds it.

        Args:
            input_name: Name of the input.
        """
        return 0.0, 1.0

    @property
    def optimized_variables(self) -> list[Any]:
        """The variables that `optimizer` trains."""
        return self.trainable_variables

    @property
    def needs_training(self) -> bool:
        """Whether there is anything to train; else `fit_scoring` is all."""
        return bool(self.trainable_variables)

    # === What they share ===

    def compile(
        self,
        optimizer: Any = None,
        loss: Any = None,
        *,
        learning_rate: float | None = None,
        steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Configures training, by default as the host's paper does.

        Args:
            optimizer: As in `keras.Model.compile`; None takes that of the
                paper, `default_optimizer(learning_rate, steps)`.
            loss: As in `keras.Model.compile`, a dict by output name; None takes
                `default_losses()`. The terms of the blocks are added anyway.
            learning_rate: The rate that the paper's optimizer begins with; None
                takes the paper's.
            steps: Steps that the whole training will take, over which the rate
                follows the paper's schedule; None leaves it constant.
            **kwargs: Passed on.

        Raises:
            ValueError: If an optimizer is given along with `learning_rate` or
                `steps`.
        """
        if optimizer is None:
            optimizer = self.default_optimizer(learning_rate, steps)
        elif learning_rate is not None or steps is not None:
            raise ValueError(
                "`learning_rate` and `steps` are for the host's own optimizer. "
                f"Received: optimizer={optimizer!r}, "
                f"learning_rate={learning_rate}, steps={steps}. Give the "
                "optimizer its own rate or schedule"
            )
        super().compile(
            optimizer=optimizer,
            # Without any, the terms of the blocks are all.
            loss=self.default_losses() or None if loss is None else loss,
            **kwargs,
        )
        if self.optimizer is not None:
            # So that a file has its state, also before the first step.
            self.optimizer.build(self.optimized_variables)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as it was when it was saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    def fit(self, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
        """Trains on normal images; arguments as in `keras.Model.fit`.

        Args:
            x: Normal images: an array or a dataset of batches.
            y: Targets, for hosts that take them; None (the rule) derives them
                from the images.
            **kwargs: Passed on. `validation_data` are normal images as well, or
                a pair of inputs and targets.

        Returns:
            The `History`. Besides `loss` it holds `sspcab_loss`, the part of
            it that is due to the blocks. It is empty where nothing needs
            training.
        """
        images = x
        if not self.needs_training:
            self.fit_scoring(images)
            history = keras.callbacks.History()
            history.on_train_begin()
            return history
        if y is None:
            x = self._prepared(x, kwargs, shuffle=True)
            validation = kwargs.get("validation_data")
            if validation is not None and not isinstance(validation, tuple):
                kwargs["validation_data"] = self._prepared(
                    validation, {"batch_size": kwargs.get("batch_size")}
                )
        if not hasattr(x, "shape"):
            # Datasets bring their own order; Keras warns about its default.
            kwargs.setdefault("shuffle", False)
        history = super().fit(x, y, **kwargs)
        pairs = isinstance(getattr(images, "element_spec", None), tuple)
        if y is None and not pairs:
            # Inputs that come with targets may be anything but normal.
            self.fit_scoring(images)
        return history

    def evaluate(self, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
        """Measures the losses on normal images; arguments as in Keras."""
        if y is None:
            x = self._prepared(x, kwargs)
        return super().evaluate(x, y, **kwargs)

    def _prepared(
        self, data: Any, options: dict[str, Any], shuffle: bool = False
    ) -> Any:
        """Makes training examples; takes from `options` what arrays need."""
        prepare = type(self).prepare_training_data
        if prepare is AnomalyModel.prepare_training_data:
            return data
        if hasattr(data, "shape"):
            from keras_sspcab.data import batch_array

            batch_size = options.pop("batch_size", None) or 32
            shuffle = options.pop("shuffle", shuffle)
            data = batch_array(data, batch_size, shuffle)
        spec = getattr(data, "element_spec", None)
        if isinstance(spec, tuple):
            # Pairs of inputs and targets: training examples already.
            return data
        shape = getattr(spec, "shape", None)
        if shape is None or len(shape) != 4:
            raise ValueError(
                f"{self.name} makes its training examples from normal images: "
                "an array `(images, height, width, channels)` or a "
                "tf.data.Dataset of batches of them. Received: "
                f"{type(data).__name__ if spec is None else spec}"
            )
        channels = self.input_shape[-1]
        if shape[-1] not in (None, channels):
            raise ValueError(
                f"{self.name} is built for images with {channels} channels. "
                f"Received: images with {shape[-1]}, of shape {tuple(shape)}. "
                f"Read them with channels={channels}, or build the model with "
                f"input_shape=(height, width, {shape[-1]})"
            )
        return self.prepare_training_data(data)

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
    def metrics(self) -> list[Any]:
        """The metrics of Keras; several blocks are reported one by one too."""
        collected = super().metrics
        blocks = [
            layer.own_loss_metric
            for layer in self._flatten_layers(include_self=False)
            if isinstance(layer, SSPCABLayer) and layer.adds_loss
        ]
        return collected + (blocks if len(blocks) > 1 else [])

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
        for images in image_batches(data, batch_size):
            outputs = self.predict_on_batch(images)
            scores.append(np.asarray(outputs["raw_score"]))
            normalized = np.asarray(outputs["anomaly_map"])
            maps.append(normalized * present.map_std + present.map_mean)
        self.calibration = Calibration.measure(
            np.concatenate(scores) if scores else np.empty(0),
            thin_out(maps, MAX_PIXELS),
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
        config = {
            **self.arguments,
            "name": self.name,
            "calibration": self.calibration.to_dict(),
        }
        if self.backbone_weights is not None:
            config["backbone_weights"] = self.backbone_weights
        return config

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> "AnomalyModel":
        config = dict(config)
        source = config.pop("backbone_weights", None)
        if source is None:
            return cls(**config)
        # They are in the model's own file; theirs is not needed again.
        model = cls(**config, weights=None)
        model.backbone_weights = source
        return model
