"""What layers share: their config, and the arguments of their weights."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import keras
from keras import ops

# Keras has no public name for the layers that are being called.
from keras.src.backend.common import global_state

from keras_sspcab.checks import standardize_data_format
from keras_sspcab.layers.parts import quantize_parts, quantized_parts

Shape = tuple[int | None, ...]

# How arguments that are no plain values are written to a config.
_SERIALIZERS: dict[str, Callable[[Any], Any]] = {
    "activation": keras.activations.serialize,
    "kernel_initializer": keras.initializers.serialize,
    "bias_initializer": keras.initializers.serialize,
    "kernel_regularizer": keras.regularizers.serialize,
    "bias_regularizer": keras.regularizers.serialize,
    "kernel_constraint": keras.constraints.serialize,
    "bias_constraint": keras.constraints.serialize,
}
_WEIGHT_ARGUMENTS = ("use_bias", *list(_SERIALIZERS)[1:])


#: How weights of the block are drawn: as in other layers of Keras, or as in the
#: authors' PyTorch code.
INITIALIZERS = ("keras", "authors")


def pytorch_initializers(fan_in: int) -> dict[str, Any]:
    """Returns initializers as PyTorch has them for its layers.

    Kernel and bias are uniform, within one over the root of the inputs.
    """
    limit = 1 / math.sqrt(fan_in)
    uniform = keras.initializers.RandomUniform(-limit, limit)
    # As a config: one object would draw the same numbers for each weight.
    start = keras.initializers.serialize(uniform)
    return {"kernel_initializer": start, "bias_initializer": start}


def at_least_float32(x: Any) -> Any:
    """Returns a tensor in float32, or in float64 if that is what it has."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    return ops.cast(x, keras.backend.result_type(dtype, "float32"))


def multiply_last_axis(x: Any, matrix: Any) -> Any:
    """Multiplies the last axis of a tensor by a matrix `(values, new_values)`.

    Use it instead of `ops.matmul` for tensors of four axes or more: with a
    second axis of one, TensorFlow may write out of bounds on CPUs
    (tensorflow/tensorflow#117700).
    """
    shape = ops.shape(x)
    product = ops.matmul(ops.reshape(x, (-1, *shape[-2:])), matrix)
    return ops.reshape(product, (-1, *shape[1:-1], ops.shape(matrix)[-1]))


def set_all_weights(layer: keras.layers.Layer, weights: Any) -> None:
    """Sets all weights of a layer or model, and updates its normalizations.

    `keras.layers.Normalization` computes by copies of its mean and variance,
    which `set_weights` leaves as they were and loading a file renews.
    """
    keras.layers.Layer.set_weights(layer, weights)
    for part in layer._flatten_layers():
        if isinstance(part, keras.layers.Normalization):
            part.finalize_state()


class ConfigLayer(keras.layers.Layer):
    """A layer whose arguments are attributes of the same name.

    Args:
        quantization: How its parts have been quantized, as `get_config` says.

    Attributes:
        config_names: Those that are written to the config, besides the ones of
            the base class.
        default_dtype: Dtype of the layer unless one is given. None: the global
            dtype policy.
    """

    config_names: ClassVar[tuple[str, ...]] = ()
    default_dtype: ClassVar[str | None] = None

    def __init__(self, **kwargs: Any) -> None:
        if self.default_dtype is not None:
            kwargs.setdefault("dtype", self.default_dtype)
        quantization = kwargs.pop("quantization", None)
        super().__init__(**kwargs)
        # Of the parts that it is made of, once they are there.
        self._quantization = dict(quantization or {})

    def fix_sizes(self, input_shape: Shape, *axes: int) -> tuple[int, ...]:
        """Takes only inputs of these sizes from now on, and returns them."""
        sizes = tuple(
            size for axis in axes if (size := input_shape[axis]) is not None
        )
        if len(sizes) < len(axes):
            raise ValueError(
                f"The size of the input of {self.name!r} must be known along "
                f"the axes {axes}. Received: input_shape={tuple(input_shape)}"
            )
        self.input_spec = keras.layers.InputSpec(
            ndim=len(input_shape), axes=dict(zip(axes, sizes, strict=True))
        )
        return sizes

    @contextlib.contextmanager
    def building_parts(self) -> Iterator[None]:
        """The context in which the layers are built that this is made of."""
        # `keras.RematScope` computes the whole again, not each part once more.
        with keras.RematScope(mode=None):
            yield
        quantize_parts(self, self._quantization)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if quantization := quantized_parts(self) or dict(self._quantization):
            config["quantization"] = quantization
        for cls in reversed(type(self).__mro__):
            for name in vars(cls).get("config_names", ()):
                value = getattr(self, name)
                serialize = _SERIALIZERS.get(name)
                config[name] = serialize(value) if serialize else value
        return config


class EffectLayer(ConfigLayer):
    """A layer whose call does more than compute its outputs.

    `compute` returns the outputs; `conclude` adds a loss or moves a state.
    Under `keras.RematScope`, `compute` alone is done again for the gradient.
    """

    def compute(self, inputs: Any) -> Any:
        """Returns the outputs, and does nothing else."""
        raise NotImplementedError

    def conclude(self, inputs: Any, outputs: Any, training: bool) -> None:
        """Adds the loss or moves the state that belongs to the outputs."""
        raise NotImplementedError

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        outputs = self.compute(inputs)
        self.conclude(inputs, outputs, bool(training))
        return outputs

    def rematerialized_call(
        self, layer_call: Any, *args: Any, **kwargs: Any
    ) -> Any:
        given = (*args, *kwargs.values())[:1]
        compute = super().rematerialized_call(self.compute, *given)

        def call(inputs: Any, training: bool | None = None) -> Any:
            outputs = compute(inputs)
            self.conclude(inputs, outputs, bool(training))
            return outputs

        return call

    def check_single_pass(self) -> None:
        """Refuses to be a part of something that is computed again."""
        for scope in global_state.get_global_attribute("name_scope_stack", []):
            mode = getattr(scope.caller, "_remat_mode", None)
            if scope.caller is self or mode is None:
                continue
            is_computed_again = {
                "full": True,
                "larger_than": not _is_recording(),
                "list_of_layers": scope.caller.name in mode.layer_names,
            }
            if is_computed_again.get(mode.mode):
                raise ValueError(
                    f"keras.RematScope computes {scope.caller.name!r} again "
                    f"for its gradient, and {self.name!r} in it would do twice "
                    "what it must do once. Build the model outside of the "
                    "scope, or use mode='list_of_layers' with the names of "
                    f"single layers. Received: mode={mode.mode!r}"
                )


def _is_recording() -> bool:
    """Whether a gradient tape of TensorFlow records what is computed."""
    if keras.config.backend() != "tensorflow":
        return False
    import tensorflow as tf

    with tf.GradientTape() as tape:
        x = tf.zeros(())
        tape.watch(x)
        y = tf.identity(x)
    return tape.gradient(y, x) is not None


class ImageLayer(ConfigLayer):
    """A layer of feature maps, with the channels last or first.

    Its output has the shape of its input, unless a subclass says otherwise.

    Attributes:
        rank: Number of spatial axes. A subclass has its own, or 0 to take that
            of its input, two or three, when it is built.
    """

    rank: int = 2

    config_names: ClassVar[tuple[str, ...]] = ("data_format",)

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = standardize_data_format(data_format)
        self.input_spec = (
            keras.layers.InputSpec(ndim=self.rank + 2)
            if self.rank
            else keras.layers.InputSpec(min_ndim=4, max_ndim=5)
        )

    @property
    def _channels_first(self) -> bool:
        return self.data_format == "channels_first"

    @property
    def _channel_axis(self) -> int:
        return 1 if self._channels_first else -1

    @property
    def _spatial_axes(self) -> tuple[int, ...]:
        first = 2 if self._channels_first else 1
        return tuple(range(first, first + self.rank))

    def _fix_channels(self, input_shape: Shape) -> int:
        if not self.rank:
            self.rank = len(input_shape) - 2
        return self.fix_sizes(input_shape, self._channel_axis)[0]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)


class WeightedLayer(ImageLayer):
    """A layer of feature maps with kernels and biases.

    Arguments that belong to the base layer (`name`, `dtype`,
    `activity_regularizer`, ...) are passed on.
    """

    config_names = _WEIGHT_ARGUMENTS

    def __init__(
        self,
        data_format: str | None = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format, **kwargs)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)

    def _add_kernel(self, *shape: int, **options: Any) -> keras.Variable:
        return self.add_weight(
            name="kernel",
            shape=shape,
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            **options,
        )

    def _add_bias(self, *shape: int, **options: Any) -> keras.Variable | None:
        if not self.use_bias:
            return None
        return self.add_weight(
            name="bias",
            shape=shape,
            initializer=self.bias_initializer,
            regularizer=self.bias_regularizer,
            constraint=self.bias_constraint,
            **options,
        )

    def _child_arguments(self) -> dict[str, Any]:
        """The same arguments for a layer that this one is made of."""
        arguments = {name: getattr(self, name) for name in _WEIGHT_ARGUMENTS}
        for name in ("kernel_initializer", "bias_initializer"):
            # One object would draw the same numbers for every child; functions
            # are called as they are.
            if isinstance(arguments[name], keras.initializers.Initializer):
                arguments[name] = arguments[name].clone()
        return {**arguments, "dtype": self.dtype_policy}
