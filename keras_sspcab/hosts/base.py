"""The base of all hosts: build, compile, fit, calibrate, predict."""

import dataclasses
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np

from keras_sspcab.hosts.batches import (
    highest_by_frame,
    iterate_batches,
    thin_out,
)
from keras_sspcab.layers import SSPCABLayer
from keras_sspcab.scoring import CalibratedScores, Calibration

#: Pixels kept for the quantile of the map, at most; 40 MB as float32.
MAX_PIXELS = 10_000_000

Settings = Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class HostGuide:
    """What a host is for, what it takes and what it gives.

    `keras-sspcab models` shows it. What has not been measured is left empty.

    Attributes:
        purpose: What it is good at, in a few words.
        training_time: What training takes on two CPU cores, and of what;
            unless it says otherwise at the settings of the command line, for
            about 300 images.
        expectation: What it has reached, and of what.
        needs_gpu: Whether the settings of the command line take too long
            without a GPU to be of use.

    Example:
    >>> HostGuide(purpose="aligned parts").needs_gpu
    False
    """

    purpose: str = ""
    training_time: str = ""
    expectation: str = ""
    needs_gpu: bool = False


class Untracked:
    """Holds what Keras must not take for a part of the model.

    Models, metrics and optimizers that are attributes of a model are saved and
    counted with it, unless they are in such a box.

    Args:
        value: What it holds, at `.value`.
    """

    def __init__(self, value: Any) -> None:
        self.value = value


class AnomalyModel(keras.Model):
    """An anomaly detector: images in, scores, maps and flags out.

    All hosts are used alike:

    - `model.compile()`: optimizer and losses of the host's paper.
    - `model.fit(normal_images)`
    - `model.calibrate(more_normal_images)`: scale and thresholds.
    - `model.predict(images)["is_anomalous"]`

    Images are float tensors `(batch, height, width, channels)` in [0, 1], in
    training, in `predict` and in every export.

    A host is a functional model. Its constructor builds the graph from its
    arguments, passes raw score and raw map through `self.detector_outputs`, and
    hands inputs and outputs to `super().__init__`. It takes `input_shape`,
    `calibration` and `name`; whatever else it takes can be set in the section
    `[model]` of a run, and goes into the config by itself. It overrides
    `default_losses`, and of the rest what differs: `default_optimizer`,
    `prepare_training_data` where training examples are made from normal images,
    `training_targets`, and `fit_scoring` where the score needs more than
    trained weights. `docs/adding_a_host.md` shows two complete hosts.

    Outputs of `predict`, a dict of arrays:
        anomaly_score: `(batch,)` float32, in standard deviations above the mean
            of the normal images that calibrated the model.
        anomaly_map: `(batch, height, width)` float32, likewise for pixels.
        is_anomalous: `(batch,)` bool, score at or above the threshold.
        raw_score: `(batch,)` float32, the score before normalization.
        others: what the host adds, such as `reconstruction`.

    Arguments that hosts share:
        sspcab: Where the `SSPCABLayer` sits, or None.
        sspcab_options: Its arguments, such as `{"loss_weight": 0.1}`.
        calibration: A `Calibration`; set by `calibrate`.
        name: Name of the model.

    Example:
    >>> import numpy as np
    >>> from keras_sspcab.applications import AutoEncoder
    >>> model = AutoEncoder((32, 32, 1))
    >>> model.compile()
    >>> normal = np.random.default_rng(0).random((4, 32, 32, 1), "float32")
    >>> history = model.fit(normal, verbose=0)
    >>> model.calibrate(normal).num_images
    4
    >>> model.predict(normal, verbose=0)["anomaly_map"].shape
    (4, 32, 32)
    """

    #: What the host looks at: "image", "video" or "objects" (of videos).
    kind: ClassVar[str] = "image"

    #: Whether `input_shape` begins with a number of frames.
    takes_frames: ClassVar[bool] = False

    #: What helps to choose the host.
    guide: ClassVar[HostGuide] = HostGuide()

    #: Settings of a run that suit the host, by section ("data", "model",
    #: "training", "calibration", "evaluation"). What a host does not name is as
    #: its base class has it.
    default_settings: ClassVar[Settings] = {}

    #: Further settings of `[evaluation]` and their defaults; `score_clips` of a
    #: host of video gets them.
    evaluation_options: ClassVar[Mapping[str, Any]] = {}

    #: Where `keras-sspcab compare` puts the block; None leaves it to the host.
    comparison_place: ClassVar[str | None] = None

    #: Whether `calibrate` needs no images besides those of `fit_scoring`.
    calibrates_by_folds: ClassVar[bool] = False

    #: Where the weights of a pretrained network come from, as plain values. A
    #: host that has one takes `weights`, which is not kept: they lie in the
    #: model's own file.
    backbone_weights: dict[str, str | None] | None = None

    #: The arguments of the constructor, for the config.
    arguments: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        inherited = super(cls, cls).default_settings
        own = cls.default_settings
        cls.default_settings = {
            name: {**inherited.get(name, {}), **own.get(name, {})}
            for name in {**inherited, **own}
        }

    def __new__(cls, *args: Any, **kwargs: Any) -> "AnomalyModel":
        """Notes the arguments of the constructor."""
        model = super().__new__(cls, *args, **kwargs)
        try:
            given = inspect.signature(cls.__init__).bind(model, *args, **kwargs)
        except TypeError:
            # The constructor will say what is wrong.
            return model
        given.apply_defaults()
        _, *names = given.arguments
        arguments = {
            name: _with_tuples(given.arguments[name])
            for name in names
            if name not in ("calibration", "name", "weights")
        }
        # Keras would take what is in it for parts of the model.
        object.__setattr__(model, "arguments", arguments)
        return model

    @staticmethod
    def detector_outputs(
        raw_score: Any,
        raw_map: Any,
        calibration: Calibration | dict[str, Any] | None,
        **host_outputs: Any,
    ) -> dict[str, Any]:
        """Returns the outputs of a host, the shared ones first.

        Args:
            raw_score: Symbolic `(batch,)`, larger is more anomalous.
            raw_map: Symbolic `(batch, height, width)`, likewise.
            calibration: As the constructor got it.
            **host_outputs: Further outputs by name.
        """
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

    def training_targets(self, x: Any, y: Any) -> dict[str, Any]:
        """Targets by output name, from what the training data yields.

        Args:
            x: Inputs.
            y: Targets, or None; here a dict with one for each loss.
        """
        names = set(self.default_losses())
        if names and (not isinstance(y, Mapping) or set(y) != names):
            raise ValueError(
                f"{type(self).__name__} trains on pairs of an input and a dict "
                f"with the targets {sorted(names)}. Pass normal images alone "
                "to have both made from them. Received targets: "
                f"{sorted(y) if isinstance(y, Mapping) else y!r}"
            )
        return dict(y) if names else {}

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

    # === Training ===

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
        else:
            check_own_rate(optimizer, learning_rate, steps)
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
        shape, expected = getattr(spec, "shape", None), self.input_shape
        if shape is None or len(shape) != len(expected):
            raise ValueError(
                f"{self.name} makes its training examples from normal images: "
                "an array `(images, height, width, channels)` or a "
                "tf.data.Dataset of batches of them. Received: "
                f"{type(data).__name__ if spec is None else spec}"
            )
        if shape[-1] not in (None, expected[-1]):
            raise ValueError(
                f"{self.name} is built for images with {expected[-1]} channels."
                f" Received: images with {shape[-1]}, of shape {tuple(shape)}. "
                f"Read them with channels={expected[-1]}, or build the model "
                f"with input_shape=(height, width, {shape[-1]})"
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

    # === Scores ===

    @property
    def calibration(self) -> Calibration:
        """Scale and thresholds; set a new one to change them."""
        return self.get_layer("calibration").calibration

    @calibration.setter
    def calibration(self, value: Calibration) -> None:
        self.get_layer("calibration").calibration = value
        self.discard_compiled()

    def discard_compiled(self) -> None:
        """Discards compiled functions that may hold old numbers as constants.

        To be called where something other than a weight has changed.
        """
        self.predict_function = None
        self.test_function = None

    def calibrate(
        self,
        data: Any = None,
        quantile: float | None = None,
        pixel_quantile: float = 0.999,
        batch_size: int = 32,
    ) -> Calibration:
        """Measures what is normal, on images that were not trained on.

        Sets the scale of scores and maps and both thresholds. They are stored
        in the model, and with it in `.keras` files and exports.

        Args:
            data: Normal images: an array (or a dict of arrays), or an iterable
                of batches; of a tuple the first part counts. Where the second
                part says which `"video"` and `"frame"` each row is from, as
                datasets with `with_index=True` do, the scores of frames are
                measured, each the highest of its rows. None takes what
                `fit_scoring` has measured, for hosts that calibrate by folds.
            quantile: Share of the images that shall lie below the threshold:
                `1 - quantile` is the rate of false alarms to expect. With few
                images the largest score decides. None (the default) takes the
                host's in `default_settings`, or 0.99.
            pixel_quantile: The same for pixels of the map.
            batch_size: Batch size for arrays.

        Returns:
            The new calibration, also at `self.calibration`.

        Raises:
            ValueError: If there is no image, or a score is not finite.
        """
        if quantile is None:
            settings = self.default_settings.get("calibration", {})
            quantile = settings.get("quantile", 0.99)
        scores, pixels = self.normal_scores(data, batch_size)
        self.calibration = Calibration.measure(
            scores, pixels, quantile, pixel_quantile
        )
        return self.calibration

    def normal_scores(
        self, data: Any, batch_size: int = 32
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the raw scores that `calibrate` measures, and raw pixels.

        Args:
            data: As in `calibrate`.
            batch_size: Batch size for arrays.
        """
        if data is None:
            raise ValueError(
                f"{self.name} is calibrated with normal images that it was not "
                "trained on. Received: data=None"
            )
        # Maps come out in the scale of the present calibration.
        present = self.calibration
        scores, maps, indices = [], [], []
        for inputs, index in self.input_batches(data, batch_size):
            outputs = self.predict_on_batch(inputs)
            scores.append(np.asarray(outputs["raw_score"]))
            normalized = np.asarray(outputs["anomaly_map"])
            maps.append(normalized * present.map_std + present.map_mean)
            indices.append(index)
        return highest_by_frame(scores, indices), thin_out(maps, MAX_PIXELS)

    def input_batches(
        self, data: Any, batch_size: int = 32
    ) -> Iterator[tuple[Any, Any]]:
        """Yields NumPy batches, each with what came with it in a tuple.

        Args:
            data: Arrays, or an iterable of batches or of tuples that begin with
                one.
            batch_size: Batch size for arrays.

        Raises:
            ValueError: If a batch is not as the model takes it.
        """
        return iterate_batches(data, batch_size, isinstance(self.input, dict))

    def outputs_on(
        self, data: Any, names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Returns some of the outputs for all of the data, for `fit_scoring`.

        Args:
            data: As in `input_batches`.
            names: The outputs.
        """
        parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for inputs, _ in self.input_batches(data):
            outputs = self.predict_on_batch(inputs)
            for name in names:
                parts[name].append(np.asarray(outputs[name]))
        return {
            name: np.concatenate(part) if part else np.empty(0)
            for name, part in parts.items()
        }

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

    # === Config ===

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


def _with_tuples(value: Any) -> Any:
    """Turns lists, as which files give tuples back, into tuples."""
    if isinstance(value, (list, tuple)):
        return tuple(_with_tuples(part) for part in value)
    return value


def check_own_rate(optimizer: Any, rate: float | None, steps: Any) -> None:
    """Refuses a rate or steps for an optimizer that the user has made."""
    if rate is not None or steps is not None:
        raise ValueError(
            "`learning_rate` and `steps` are for the host's own optimizer. "
            f"Received: optimizer={optimizer!r}, learning_rate={rate}, "
            f"steps={steps}. Give the optimizer its own rate or schedule"
        )
