"""The base of all hosts: what they declare, and how they are trained."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import keras
from keras.utils import PyDataset

from keras_sspcab.hosts.batches import (
    as_tensorflow_dataset,
    check_values,
    first_images,
    hold_out,
    is_endless,
    is_paired,
    scoring_data,
)
from keras_sspcab.hosts.detector import Detector
from keras_sspcab.layers.predictive_block import PredictiveBlock

Settings = Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class HostGuide:
    """What a host is for, what it takes and what it gives.

    `keras-sspcab models` shows it. What has not been measured is left empty.

    Attributes:
        purpose: What it is good at, in a few words.
        training_time: What training takes on two CPU cores, at the settings of
            the command line and for about 300 images unless it says otherwise.
        expectation: What it has reached, and of what.
        needs_gpu: Whether it is of no use without a GPU.

    Example:
    >>> HostGuide(purpose="aligned parts").needs_gpu
    False
    """

    purpose: str = ""
    training_time: str = ""
    expectation: str = ""
    needs_gpu: bool = False


@dataclasses.dataclass(frozen=True)
class PublishedEvaluation:
    """The evaluation that the published figures of a host come from.

    `Run.evaluate(as_published=True)` measures like that.

    Attributes:
        text: What there is to know beside the figures, in words.
        settings: Settings by `"section.key"`. Those of `[evaluation]` are set;
            a run in which one of the others differs is refused.

    Example:
    >>> settings = {"evaluation.smoothing": "none"}
    >>> PublishedEvaluation("no smoothing", settings).text
    'no smoothing'
    """

    text: str
    settings: Mapping[str, Any]


class AnomalyModel(Detector):
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
    `default_losses`, and of the rest what differs. `docs/how_to/add_a_host.md`
    shows two complete hosts.

    Outputs of `predict`, a dict of arrays:
        anomaly_score: `(batch,)` float32, in standard deviations above the mean
            of the normal images that calibrated the model.
        anomaly_map: `(batch, height, width)` float32, likewise for pixels.
        is_anomalous: `(batch,)` bool, score at or above the threshold.
        raw_score: `(batch,)` float32, the score before normalization.
        others: what the host adds, such as `reconstruction`.

    Arguments that hosts share:
        input_shape: Of one image, clip or object, without the batch axis.
        sspcab: Where blocks sit: a place, several, or None.
        sspcab_options: Arguments of the blocks, such as `{"loss_weight":
            0.1}`, and their `"type"`, as `keras_sspcab.layers.block_layer`
            takes them; without a type they are `SSPCABLayer`s.
        calibration: A `Calibration`; set by `calibrate`.
        name: Name of the model.

    Raises:
        ValueError: If an argument of a host is out of its range.

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

    #: The evaluation behind the published figures of the host, if known.
    published_evaluation: ClassVar[PublishedEvaluation | None] = None

    #: How the published code resizes, for what is made of its checkpoints.
    published_resize: ClassVar[str] = "bilinear"

    #: Whether `calibrate` needs no images besides those of `fit_scoring`.
    calibrates_by_folds: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        inherited = super(cls, cls).default_settings
        own = cls.default_settings
        cls.default_settings = {
            name: {**inherited.get(name, {}), **own.get(name, {})}
            for name in {**inherited, **own}
        }

    @classmethod
    def from_published(cls, *paths: Any, **arguments: Any) -> "AnomalyModel":
        """Makes the model of a published checkpoint; hosts say which.

        Raises:
            ValueError: If none is known for the host, or the files do not fit.
        """
        raise ValueError(
            f"No published checkpoint of {cls.__name__} is known, so none can "
            f"be read. Received: {list(map(str, paths))}"
        )

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
        rate = 1e-3 if learning_rate is None else learning_rate
        return keras.optimizers.Adam(rate)

    def default_losses(self) -> dict[str, Any]:
        """Keras losses by output name, used when none is given."""
        raise NotImplementedError

    def prepare_training_data(self, data: Any) -> Any:
        """Turns a dataset of batches of normal images into training examples.

        These are pairs of inputs and targets, as `training_targets` takes them.
        Random numbers follow from numpy's global generator, which
        `keras.utils.set_random_seed` seeds.
        """
        return data

    def training_targets(self, x: Any, y: Any) -> dict[str, Any]:
        """Returns targets by output name, from what the training data yields.

        Here `y` is a dict with one for each loss.
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
        images, by the command line with all training images, as an array or an
        iterable of batches.
        """

    def value_range(self, input_name: str) -> tuple[float, float] | None:
        """Lowest and highest value of an input; None if nothing bounds it."""
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
        epochs: int | None = None,
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
            epochs: Into how many epochs these are divided, for hosts whose rate
                changes after epochs; see their `default_optimizer`.
            **kwargs: As in `keras.Model.compile`.
        """
        if optimizer is None:
            make = self.default_optimizer
            known = inspect.signature(make).parameters
            by_epoch = {"epochs": epochs} if "epochs" in known else {}
            optimizer = make(learning_rate, steps, **by_epoch)
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
            x: Normal images: an array or a dataset of batches, of TensorFlow or
                Keras (`keras.utils.PyDataset`). Of one without an end, what
                scores is fitted to the first `steps_per_epoch` batches.
            y: Targets, for hosts that take them; None (the rule) derives them
                from the images.
            **kwargs: `validation_data` are normal images as well, or a pair of
                inputs and targets. Of an array, `validation_split` keeps the
                last images, which nothing is fitted to.

        Returns:
            The `History`, with `sspcab_loss`, the part of `loss` that is due to
            the blocks; empty where nothing needs training.

        Raises:
            ValueError: If images that the scoring is fitted to can be read only
                once or have no end, or an array, or the first batch of a
                dataset, is not finite or not from 0 to 1.
        """
        self._refuse_weights(y, kwargs)
        # Of a dataset the first batch tells, before all the training.
        for images in (x, kwargs.get("validation_data")):
            check_values(first_images(images))
        if kwargs.get("sample_weight") is None:
            if y is None:
                x = hold_out(x, kwargs)
            else:
                x, y = hold_out((x, y), kwargs)
        images, is_trained = x, self.needs_training
        # Inputs that come with targets may be anything but normal, where the
        # host has a use for targets.
        is_fitted = not (is_trained and self.default_losses()) or (
            y is None and not is_paired(x)
        )
        if is_fitted and self._fits_scoring():
            steps = kwargs.get("steps_per_epoch")
            images = scoring_data(x, steps, is_trained)
        if not is_trained:
            self.fit_scoring(images)
            history = keras.callbacks.History()
            history.on_train_begin()
            return history
        if y is None:
            size = kwargs.get("validation_batch_size")
            size = size or kwargs.get("batch_size")
            x = self._prepared(x, kwargs, shuffle=True)
            validation = kwargs.get("validation_data")
            if validation is not None and not isinstance(validation, tuple):
                kwargs["validation_data"] = self._prepared(
                    validation, {"batch_size": size}
                )
        has_order = not hasattr(x, "shape") and not isinstance(x, PyDataset)
        if has_order or is_endless(x):
            # Datasets bring their own order; Keras warns about its default.
            kwargs.setdefault("shuffle", False)
        history = super().fit(x, y, **kwargs)
        if is_fitted:
            self.fit_scoring(images)
        return history

    def _refuse_weights(self, y: Any, options: Mapping[str, Any]) -> None:
        """Raises a ValueError for `sample_weight` without targets.

        Keras would silently ignore the weights.
        """
        if y is None and options.get("sample_weight") is not None:
            raise ValueError(
                f"{self.name} takes its targets from the images, so that "
                "`sample_weight` would count for nothing. Leave it out, or "
                "give the targets as `y` where the host takes them"
            )

    def _fits_scoring(self) -> bool:
        """Whether this host overrides `fit_scoring`."""
        return type(self).fit_scoring is not AnomalyModel.fit_scoring

    def evaluate(self, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
        """Measures the losses on normal images; arguments as in Keras."""
        self._refuse_weights(y, kwargs)
        check_values(first_images(x))
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
        if is_paired(data):
            # Pairs of inputs and targets: training examples already.
            return data
        if isinstance(data, PyDataset):
            data = as_tensorflow_dataset(data)
        spec = getattr(data, "element_spec", None)
        if isinstance(spec, tuple):
            # Of images alone, which `map` takes out of it.
            (spec,) = spec
            data = data.map(lambda images: images)
        shape, expected = getattr(spec, "shape", None), self.input_shape
        if shape is None or len(shape) != len(expected):
            raise ValueError(
                f"{self.name} makes its training examples from normal images: "
                "an array `(images, height, width, channels)`, or a "
                "tf.data.Dataset or keras.utils.PyDataset of batches of them. "
                f"Received: {type(data).__name__ if spec is None else spec}"
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
            if isinstance(layer, PredictiveBlock) and layer.adds_loss
        ]
        return collected + (blocks if len(blocks) > 1 else [])


def check_own_rate(optimizer: Any, rate: float | None, steps: Any) -> None:
    """Refuses a rate or steps for an optimizer that the user has made."""
    if rate is not None or steps is not None:
        raise ValueError(
            "`learning_rate` and `steps` are for the host's own optimizer. "
            f"Received: optimizer={optimizer!r}, learning_rate={rate}, "
            f"steps={steps}. Give the optimizer its own rate or schedule"
        )
