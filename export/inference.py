"""The one inference function of a model, which all formats export."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# No public name for it; all converters of TensorFlow use this one.
from tensorflow.python.framework.convert_to_constants import (
    convert_variables_to_constants_v2,
)

from keras_sspcab.data.decoding import standardize_size
from keras_sspcab.export.precision import OPTIONS_SCOPE, computing_in
from keras_sspcab.hosts import (
    AnomalyModel,
    ProductModel,
    require_finite_weights,
)
from keras_sspcab.layers import (
    MaskedConv2D,
    MaskedConv3D,
    auxiliary_losses_disabled,
    masked_conv_form,
)
from keras_sspcab.layers.plain_operations import plain_operations
from keras_sspcab.optional_inputs import (
    DECISION_INPUTS,
    OptionalInput,
    left_out,
)
from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.scoring import decide_with

#: What an `AnomalyModel` exports unless it is told otherwise, and more where
#: regions have thresholds of their own, or there are several products.
DETECTOR_OUTPUTS = ("anomaly_score", "anomaly_map", "is_anomalous")
REGION_OUTPUTS = ("region_scores", "region_is_anomalous")
PRODUCT_OUTPUT = "product_index"

# Protocol buffers, which most formats are made of, end at 2 GiB.
_MAX_WEIGHT_BYTES = 1_900_000_000


class Inference:
    """What a model computes in use, with names for inputs and outputs.

    By default an `AnomalyModel` gives scores, maps and flags, another model all
    outputs, under their keys if they are a dict, else under the names of the
    layers that end the model. Nothing here changes the model.
    """

    def __init__(
        self,
        model: keras.Model,
        outputs: Sequence[str] | None = None,
        allow_uncalibrated: bool = False,
        image_size: Sequence[int] | None = None,
    ) -> None:
        _check_model(model, allow_uncalibrated)
        self.model = model
        self.is_detector = isinstance(model, AnomalyModel)
        # What takes optional inputs of the model's own.
        self._graph = model
        if isinstance(model, ProductModel):
            self._graph = model.graph_with_options()
        self._all_specs = _input_specs(self._graph)
        own = model.optional_inputs if self.is_detector else ()
        optional = {option.name for option in own}
        self.specs = [s for s in self._all_specs if s.name not in optional]
        #: What requests may leave out.
        self.options: tuple[OptionalInput, ...] = own
        if self.is_detector and model.calibration.is_calibrated:
            self.options = (*own, *DECISION_INPUTS)
        if image_size is not None:
            size = self.image_size(image_size)
            spec = self.specs[0]
            shape = (*spec.shape[:-3], *size, spec.shape[-1])
            self.specs = [tf.TensorSpec(shape, spec.dtype, spec.name)]
        known = _output_names(model)
        if outputs is None:
            outputs = DETECTOR_OUTPUTS if self.is_detector else known
            if self.is_detector and model.region_parts:
                outputs = (*outputs, *REGION_OUTPUTS)
            if PRODUCT_OUTPUT in known:
                outputs = (*outputs, PRODUCT_OUTPUT)
        if not outputs:
            raise ValueError(
                "At least one output must be exported. "
                f"Received: outputs={outputs!r}"
            )
        if unknown := [name for name in outputs if name not in known]:
            raise ValueError(
                f"{model.name} has no output named {unknown}. "
                f"Choose among: {', '.join(known)}"
            )
        self.output_names = tuple(outputs)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in the order in which they are passed."""
        return tuple(spec.name for spec in self.specs)

    def value_range(self, name: str) -> tuple[float, float] | None:
        """Lowest and highest value of an input; None where it has no bounds."""
        return self.model.value_range(name) if self.is_detector else None

    @property
    def calibration(self) -> dict[str, Any] | None:
        """Scale and thresholds of an `AnomalyModel`; None of another model."""
        return self.model.calibration.summary() if self.is_detector else None

    @property
    def regions(self) -> list[str]:
        """Names of the regions of interest, as those of their scores."""
        regions = getattr(self.model, "regions", None)
        return [part.name for part in regions.parts] if regions else []

    @property
    def region_labels(self) -> dict[str, Any] | None:
        """Where regions lie in an input; None if not the same in each."""
        regions = getattr(self.model, "regions", None)
        is_fixed = getattr(self.model, "alignment", None) is None
        return regions.to_dict() if regions and is_fixed else None

    @property
    def preprocessing(self) -> Preprocessing:
        """How files become inputs of an `AnomalyModel`."""
        return self.model.preprocessing if self.is_detector else Preprocessing()

    def metadata(self) -> dict[str, str]:
        """What files say of themselves; of a detector also ranges and scale.

        The range is as in `[0, 1]`, of several inputs by name, in JSON.
        """
        if not self.is_detector:
            return {"model": self.model.name}
        ranges = {name: self.value_range(name) for name in self.input_names}
        limits = next(iter(ranges.values()))
        if len(ranges) > 1:
            text = json.dumps(ranges)
        else:
            text = f"[{limits[0]:g}, {limits[1]:g}]" if limits else "null"
        regions = {"regions": json.dumps(self.regions)} if self.regions else {}
        return {
            "model": self.model.name,
            "value_range": text,
            "calibration": json.dumps(self.calibration),
            **regions,
        }

    def predict(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Runs one batch through Keras, as `model.predict` does."""
        rows = len(inputs[self.input_names[0]])
        for option in self.options:
            unused = np.full(rows, option.default, option.dtype)
            inputs.setdefault(option.name, unused)
        named = self._named(self._graph.predict_on_batch(self._pack(inputs)))
        return {name: np.asarray(named[name]) for name in self.output_names}

    def freeze(
        self,
        batch_size: int | None = None,
        form: str | None = None,
        precision: str = "float32",
        with_options: bool = True,
    ) -> "FrozenInference":
        """Traces the function into a graph without variables or losses.

        `form` is that of masked convolutions, by default the fastest. What
        comes out is float32, whatever the precision.
        """
        specs = [
            tf.TensorSpec((batch_size, *spec.shape[1:]), spec.dtype, spec.name)
            for spec in self.specs
        ]
        options = [
            tf.TensorSpec((batch_size,), option.dtype, option.name)
            for option in self.options
        ]
        asked = [*specs, *options] if with_options else specs

        @tf.function(input_signature=asked, autograph=False)
        def infer(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            values = {
                spec.name: value
                for spec, value in zip(asked, inputs, strict=True)
            }
            with tf.name_scope(OPTIONS_SCOPE):
                for option in self.options:
                    value = values.get(
                        option.name, _fill(option.default, option.dtype, 1)
                    )
                    if batch_size != 1:
                        rows = tf.shape(inputs[0])[:1]
                        value = tf.broadcast_to(value, rows)
                    values[option.name] = value
            named = self._named(self._graph(self._pack(values), training=False))
            if with_options and DECISION_INPUTS[0].name in values:
                with tf.name_scope(OPTIONS_SCOPE):
                    named |= decide_with(
                        self.model.calibration,
                        named,
                        *(values[one.name] for one in DECISION_INPUTS),
                    )
            return {name: _widen(named[name]) for name in self.output_names}

        # All that shapes the graph must hold while it is traced; a function
        # that is saved later would be traced again, without.
        with (
            computing_in(self.model, precision),
            auxiliary_losses_disabled(),
            plain_operations(),
            masked_conv_form(form or fastest_form(self.model)),
        ):
            concrete = infer.get_concrete_function()
        return FrozenInference(
            # Loops stay what they are, which all converters understand.
            convert_variables_to_constants_v2(
                concrete, lower_control_flow=False
            ),
            specs,
            options if with_options else [],
            self.output_names,
        )

    def image_size(
        self, wanted: Sequence[int] | None = None
    ) -> tuple[int | None, int | None]:
        """Height and width of the input, or the wanted ones if they fit."""
        shape = self.specs[0].shape
        if len(self.specs) > 1 or len(shape) not in (4, 5):
            raise ValueError(
                "`image_size` is for models with one input, of images. "
                f"Received: {self.model.name} with {self.specs}"
            )
        height, width = shape[-3], shape[-2]
        if wanted is None:
            return height, width
        wanted = standardize_size(wanted)
        if height not in (None, wanted[0]) or width not in (None, wanted[1]):
            raise ValueError(
                f"{self.model.name} is built for images of {height} x {width} "
                f"pixels. Received: image_size={wanted}. Leave `image_size` "
                "out, or build the model for another size."
            )
        return wanted

    def _pack(self, inputs: Mapping[str, Any]) -> Any:
        """Puts named inputs into the structure that the model takes."""
        flat = [inputs[spec.name] for spec in self._all_specs]
        return keras.tree.pack_sequence_as(_inputs(self._graph), flat)

    def _named(self, results: Any) -> dict[str, Any]:
        names = _output_names(self.model)
        return dict(zip(names, keras.tree.flatten(results), strict=True))


@dataclasses.dataclass(frozen=True)
class FrozenInference:
    """A graph of tensors in, dict of tensors out, without variables.

    `options` are specs of inputs after the others, which may be left out.
    """

    function: Any
    specs: list[tf.TensorSpec]
    options: list[tf.TensorSpec]
    output_names: tuple[str, ...]

    def __call__(self, *inputs: Any) -> dict[str, Any]:
        missing = (len(self.specs) + len(self.options)) - len(inputs)
        left = [
            _fill(left_out(spec.dtype.name), spec.dtype, spec.shape[0] or 1)
            for spec in self.options[len(self.options) - missing :]
        ]
        results = self.function(*inputs, *left)
        # TensorFlow flattens dicts in the order of their keys.
        return dict(zip(sorted(self.output_names), results, strict=True))


def _fill(value: float, dtype: Any, count: int) -> tf.Tensor:
    """Returns a vector; as a constant, NaN would be taken for weights."""
    return tf.fill([count], tf.constant(value, dtype))


def fastest_form(model: keras.Model, integer: bool = False) -> str:
    """Returns the form of masked convolutions for an exported graph.

    Measured on graphs of batch 1 with TensorFlow, LiteRT and ONNX Runtime
    (benchmarks/README.md). With corners of one pixel, the default, a single
    dilated convolution is fastest and smallest in all of them. With larger
    corners one convolution a corner is. In integers each term of that sum would
    be rounded, so there the corners are stacked. TFLite has no dilated
    convolution of volumes.
    """
    convolutions = [
        (layer.rank, layer.kernel_size)
        for layer in model._flatten_layers()
        if isinstance(layer, (MaskedConv2D, MaskedConv3D))
    ]
    if all(conv == (2, 1) for conv in convolutions):
        return "dilated"
    return "stacked" if integer else "shifted"


def _widen(output: tf.Tensor) -> tf.Tensor:
    is_short = output.dtype in (tf.float16, tf.bfloat16)
    return tf.cast(output, tf.float32) if is_short else output


def _check_model(model: Any, allow_uncalibrated: bool) -> None:
    if keras.config.backend() != "tensorflow":
        raise ValueError(
            "Exports need the TensorFlow backend of Keras. Received: "
            f"{keras.config.backend()!r}. Set KERAS_BACKEND=tensorflow and "
            "load the model again; `.keras` files hold for all backends."
        )
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a Keras model. Received: {model!r}")
    if not (getattr(model, "inputs", None) and getattr(model, "outputs", None)):
        raise ValueError(
            "`model` must be a functional model, or a sequential one that "
            "begins with `keras.Input`: its inputs are unknown. "
            f"Received: {model.name} of type {type(model).__name__}"
        )
    num_bytes = sum(int(np.prod(weight.shape)) * 4 for weight in model.weights)
    if num_bytes > _MAX_WEIGHT_BYTES:
        raise ValueError(
            f"{model.name} has {num_bytes / 1e9:.1f} GB of weights; an "
            "exported graph can hold less than 2 GB."
        )
    require_finite_weights(model)
    if (
        isinstance(model, AnomalyModel)
        and not model.calibration.is_calibrated
        and not allow_uncalibrated
    ):
        raise ValueError(
            f"{model.name} has not been calibrated: its scores would be raw "
            "and nothing would ever be flagged. Call `model.calibrate` with "
            "normal images first, or pass `allow_uncalibrated=True`."
        )


def _inputs(model: keras.Model) -> Any:
    """The inputs in the structure in which they are passed."""
    # A sequential model has only the list.
    return (
        model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    )


def _input_specs(model: keras.Model) -> list[tf.TensorSpec]:
    structure = _inputs(model)
    tensors = keras.tree.flatten(structure)
    names = (
        sorted(structure)
        if isinstance(structure, Mapping)
        else [tensor.name for tensor in tensors]
    )
    # Keras numbers unnamed inputs by what the process has built before.
    unnamed = re.compile(r"(keras_tensor|input_layer)(_\d+)?")
    names = ["input" if unnamed.fullmatch(name) else name for name in names]
    return [
        tf.TensorSpec(tensor.shape, tensor.dtype, name)
        for tensor, name in zip(tensors, _identifiers(names), strict=True)
    ]


def _output_names(model: keras.Model) -> list[str]:
    if isinstance(model, keras.Sequential):
        names = [model.layers[-1].name]
    elif isinstance(model.output, Mapping):
        names = sorted(model.output)
    else:
        names = list(getattr(model, "output_names", []))
    count = len(model.outputs)
    if len(names) != count:
        names = [f"output_{index}" for index in range(count)]
    return _identifiers(names)


def _identifiers(names: Sequence[str]) -> list[str]:
    """Makes names unique and fit for every format."""
    result: list[str] = []
    for name in names:
        base = unique = re.sub(r"\W", "_", name)
        number = 1
        while unique in result:
            unique, number = f"{base}_{number}", number + 1
        result.append(unique)
    return result
