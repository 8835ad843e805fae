"""What a trained host is: its outputs, its thresholds and its config."""

import inspect
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_sspcab.hosts.batches import check_values, iterate_batches
from keras_sspcab.hosts.normal_scores import (
    NormalScores,
    PixelSample,
    highest_by_frame,
)
from keras_sspcab.layers.auxiliary_loss import serialize_loss
from keras_sspcab.layers.base import set_all_weights
from keras_sspcab.layers.parts import (
    quantize_parts,
    quantized_parts,
    set_trainable_parts,
    trainable_parts,
)
from keras_sspcab.optional_inputs import OptionalInput
from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.regions import Region
from keras_sspcab.scoring import (
    CalibratedScores,
    Calibration,
    input_statistics,
    join_statistics,
)


class Untracked:
    """Holds what Keras must not take for a part of the model.

    Models, metrics and optimizers that are attributes of a model are saved and
    counted with it, unless they are in such a box.

    Args:
        value: What it holds, at `.value`.

    Example:
    >>> Untracked(keras.layers.Dense(3)).value.units
    3
    """

    def __init__(self, value: Any) -> None:
        self.value = value


class Detector(keras.Model):
    """The half of `AnomalyModel` that is not about training; see there."""

    default_settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    #: Where the weights of a pretrained network come from, as plain values.
    backbone_weights: dict[str, str | None] | None = None

    #: Arguments that files do not hold, such as `weights` that are read once,
    #: by the constructor: they lie in the model's own file.
    unsaved_arguments: ClassVar[tuple[str, ...]] = ()

    #: What arguments meant that files of before them do not name.
    former_arguments: ClassVar[Mapping[str, Any]] = {}

    #: The arguments of the constructor, for the config.
    arguments: dict[str, Any]

    #: How images become inputs: the white level of 16 bits, how to resize.
    preprocessing = Preprocessing()

    #: Those of the inputs that requests may leave out, by name.
    optional_inputs: tuple[OptionalInput, ...] = ()

    #: Parts of the image with thresholds of their own.
    region_parts: tuple[Region, ...] = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> "Detector":
        """Notes the arguments of the constructor."""
        model = super().__new__(cls, *args, **kwargs)
        try:
            given = inspect.signature(cls.__init__).bind(model, *args, **kwargs)
        except TypeError:
            # The constructor will say what is wrong.
            return model
        given.apply_defaults()
        _, *names = given.arguments
        noted: dict[str, Any] = {}
        for name in names:
            kind = given.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                noted |= given.arguments[name]
            elif kind is inspect.Parameter.VAR_POSITIONAL:
                # Passed on to the class below, which has names for them.
                values = given.arguments[name]
                noted |= dict(zip(_names_below(cls), values, strict=False))
            else:
                noted[name] = given.arguments[name]
        unsaved = ("calibration", "name", *cls.unsaved_arguments)
        arguments = {
            name: _plain_copy(value)
            for name, value in noted.items()
            if name not in unsaved
        }
        # Keras would take what is in it for parts of the model.
        object.__setattr__(model, "arguments", arguments)
        return model

    @classmethod
    def takes_argument(cls, name: str) -> bool:
        """Whether the constructor accepts an argument, if only by `**kwargs`.

        A subclass may settle arguments of the class below.
        """
        for owner in cls.__mro__:
            if own := vars(owner).get("__init__"):
                known = inspect.signature(own).parameters
                kinds = {parameter.kind for parameter in known.values()}
                if name in known or inspect.Parameter.VAR_KEYWORD not in kinds:
                    return name in known
        return False

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

    @property
    def calibration(self) -> Calibration:
        """Scale and thresholds; set a new one to change them."""
        return self.get_layer("calibration").calibration

    @calibration.setter
    def calibration(self, value: Calibration) -> None:
        self.apply_calibration(value)
        self.discard_compiled()

    def apply_calibration(self, value: Calibration) -> None:
        """Gives a calibration to the layers that decide by it."""
        self.get_layer("calibration").calibration = value

    def discard_compiled(self) -> None:
        """Discards compiled functions, which hold old numbers as constants."""
        attributes = vars(self).values()
        boxes = [box for box in attributes if isinstance(box, Untracked)]
        for model in (self, *(box.value for box in boxes)):
            if isinstance(model, keras.Model):
                model.predict_function = model.test_function = None

    def calibrate(
        self,
        data: Any = None,
        quantile: float | None = None,
        pixel_quantile: float = 0.999,
        batch_size: int = 32,
        decision: str | None = None,
        extra_data: Any = None,
    ) -> Calibration:
        """Measures what is normal, on images that were not trained on.

        Sets the scale of scores and maps and both thresholds, which are stored
        in the model, and with it in `.keras` files and exports. A model of your
        own that holds this one, and has predicted already, notices after
        `make_predict_function(force=True)`.

        Args:
            data: Normal images: an array (or a dict of arrays), or an iterable
                of batches; of a tuple the first part counts. Where the second
                part says which `"video"` and `"frame"` each row is from, as
                datasets with `with_index=True` do, the scores of frames are
                measured, each the highest of its rows. None takes what
                `fit_scoring` has measured, for hosts that calibrate by folds.
            quantile: Share of the images that are not flagged: `1 - quantile`
                is the rate of false alarms to expect. None (the default) takes
                the host's in `default_settings`, or 0.99.
            pixel_quantile: Share of the pixels of all maps that lie below the
                threshold of pixels.
            batch_size: Batch size for arrays.
            decision: What flags an image: its `"score"`; its `"pixels"`, if one
                is higher than in normal images; or `"either"`. None (the
                default) leaves it as it is.
            extra_data: More normal images, such as false alarms of the field,
                which count beside those of `data`.

        Returns:
            The new calibration, also at `self.calibration`. How sure it is,
            says its `false_alarm_interval`.

        Raises:
            ValueError: If there is no image, or a score is not finite.
        """
        if quantile is None:
            settings = self.default_settings.get("calibration", {})
            quantile = settings.get("quantile", 0.99)
        normal = self.normal_scores(data, batch_size)
        if extra_data is not None:
            extra = self.normal_scores(extra_data, batch_size)
            normal = normal.joined(extra)
        self.calibration = Calibration.measure(
            normal.scores,
            normal.pixels,
            quantile,
            pixel_quantile,
            decision or self.calibration.decision,
            normal.peaks,
            normal.statistics,
            normal.stand_ins,
            self.region_parts,
            normal.of_regions,
        )
        return self.calibration

    def normal_scores(self, data: Any, batch_size: int = 32) -> NormalScores:
        """Returns what `calibrate` measures."""
        if data is None:
            raise ValueError(
                f"{self.name} is calibrated with normal images that it was not "
                "trained on. Received: data=None"
            )
        # Maps come out in the scale of the present calibration.
        present = self.calibration
        mean, std = map(np.float32, (present.map_mean, present.map_std))
        scores, peaks, indices, statistics = [], [], [], []
        pixels = PixelSample()
        for inputs, index in self.input_batches(data, batch_size):
            outputs = self.predict_on_batch(inputs)
            scores.append(np.asarray(outputs["raw_score"]))
            # In float64, so that they are rounded to what they were.
            normalized = np.asarray(outputs["anomaly_map"], "float64")
            maps = (normalized * std + mean).astype("float32")
            peaks.append(maps.max(axis=(1, 2)))
            pixels.add(maps)
            indices.append(index)
            statistics.append(input_statistics(inputs))
        return NormalScores(
            highest_by_frame(scores, indices),
            pixels.result(),
            highest_by_frame(peaks, indices),
            join_statistics(statistics),
        )

    def counted_pixels(self, images: Any) -> np.ndarray | None:
        """Returns which pixels of images count, bool; None for all of them."""
        return None

    def input_batches(
        self, data: Any, batch_size: int = 32
    ) -> Iterator[tuple[Any, Any]]:
        """Yields NumPy batches, each with what came with it, or None."""
        return iterate_batches(data, batch_size, isinstance(self.input, dict))

    def outputs_on(
        self, data: Any, names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Returns some of the outputs for all of the data."""
        parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for inputs, _ in self.input_batches(data):
            outputs = self.predict_on_batch(inputs)
            for name in names:
                parts[name].append(np.asarray(outputs[name]))
        return {
            name: np.concatenate(part) if part else np.empty(0)
            for name, part in parts.items()
        }

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Scores images; warns where the model has not been calibrated.

        Arrays must be finite, which a network can hide, and from 0 to 1.
        """
        self._check_prediction(x)
        return super().predict(x, *args, **kwargs)

    def _check_prediction(self, x: Any) -> None:
        if hasattr(x, "shape") or isinstance(x, Mapping):
            check_values(x)
        if not self.calibration.is_calibrated:
            warnings.warn(
                f"{self.name} has not been calibrated: scores are raw and "
                "`is_anomalous` is never set. Call `calibrate` with normal "
                "images first.",
                stacklevel=3,
            )

    # === Config ===

    def get_config(self) -> dict[str, Any]:
        # Not the functional graph: the constructor builds it again.
        policy: Any = self.dtype_policy
        dtype = policy.name
        if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
            # Its name does not say what is in it.
            dtype = keras.dtype_policies.serialize(policy)
        config = {
            **_plain_copy(self.arguments),
            "name": self.name,
            "calibration": self.calibration.to_dict(),
            "preprocessing": self.preprocessing.to_dict(),
            "dtype": dtype,
            "trainable_parts": trainable_parts(self),
        }
        if quantization := quantized_parts(self):
            config["quantization"] = quantization
        if self.backbone_weights is not None:
            config["backbone_weights"] = dict(self.backbone_weights)
        return config

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> "Detector":
        # Only files of before do not say what is trainable.
        former = {} if "trainable_parts" in config else cls.former_arguments
        config = {**former, **config}
        preprocessing = Preprocessing(
            **{**cls.preprocessing.to_dict(), **config.pop("preprocessing", {})}
        )
        source = config.pop("backbone_weights", None)
        quantization = config.pop("quantization", {})
        trainable = config.pop("trainable_parts", None)
        if source is not None and cls.takes_argument("weights"):
            # They are in the model's own file; theirs is not needed again.
            config["weights"] = None
        present = keras.config.dtype_policy()
        policy = keras.dtype_policies.get(config.pop("dtype", present))
        keras.config.set_dtype_policy(policy)
        try:
            model = cls(**config)
        finally:
            keras.config.set_dtype_policy(present)
        model.preprocessing = preprocessing
        if source is not None:
            model.backbone_weights = source
        quantize_parts(model, quantization)
        if trainable not in (None, trainable_parts(model)):
            set_trainable_parts(model, trainable)
        return model

    def _run_through_graph(self, *args: Any, **kwargs: Any) -> Any:
        # Only `keras.models.clone_model` gives both.
        if {"operation_fn", "call_fn"} <= set(kwargs):
            raise ValueError(
                "keras.models.clone_model makes plain models, without what a "
                f"detector is. To copy {self.name!r}, call "
                f"{type(self).__name__}.from_config(model.get_config()), and "
                "set_weights(model.get_weights()) on the copy"
            )
        return super()._run_through_graph(*args, **kwargs)

    def set_weights(self, weights: Any) -> None:
        """Sets all weights, and updates the normalizations of a backbone."""
        set_all_weights(self, weights)

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Quantizes as `keras.Model.quantize` does; calibrate again after.

        The optimizer begins anew, with the variables that are left to train.
        """
        super().quantize(*args, **kwargs)
        self.discard_compiled()
        if self.compiled:
            self.compile_from_config(self.get_compile_config())


def _names_below(cls: type) -> list[str]:
    """Returns the arguments of the next constructor that names its own."""
    kinds = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    for owner in cls.__mro__:
        if own := vars(owner).get("__init__"):
            _, *given = inspect.signature(own).parameters.values()
            names = [one.name for one in given if one.kind not in kinds]
            if not any(one.kind == kinds[0] for one in given):
                return names
    return []


def require_finite_weights(model: keras.Model) -> None:
    """Raises a ValueError that names the weights that are not finite.

    A network can hide them: the largest of NaN and 0 may be 0.

    Example:
    >>> require_finite_weights(keras.Sequential())
    """
    bad = []
    for weight in model.weights:
        if "float" not in weight.dtype:
            continue
        # Of bfloat16 NumPy knows no more than the name.
        values = ops.convert_to_numpy(ops.cast(weight, "float32"))
        if not np.isfinite(values).all():
            bad.append(weight.path)
    if bad:
        others = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise ValueError(
            f"{model.name} has weights that are NaN or infinite: "
            f"{', '.join(bad[:5])}{others}. Has its training diverged? Train "
            "it again, or take an earlier file"
        )


def _plain_copy(value: Any) -> Any:
    """Copies dicts deeply, turning lists into tuples and paths into text.

    Files give tuples back as lists, and hold no paths. Losses become configs,
    as of some Keras leaves out what they are made with.
    """
    if isinstance(value, (list, tuple)):
        return tuple(_plain_copy(part) for part in value)
    if isinstance(value, dict):
        return {name: _plain_copy(part) for name, part in value.items()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return serialize_loss(value)
