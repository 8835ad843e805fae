"""What layers share: their config, and the arguments of their weights."""

from collections.abc import Callable
from typing import Any, ClassVar

import keras
from keras import ops

from keras_sspcab.checks import standardize_data_format

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


def at_least_float32(x: Any) -> Any:
    """Returns a tensor in float32, or in float64 if that is what it has."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    return ops.cast(x, keras.backend.result_type(dtype, "float32"))


class ConfigLayer(keras.layers.Layer):
    """A layer whose arguments are attributes of the same name.

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
        super().__init__(**kwargs)

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

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for cls in reversed(type(self).__mro__):
            for name in vars(cls).get("config_names", ()):
                value = getattr(self, name)
                serialize = _SERIALIZERS.get(name)
                config[name] = serialize(value) if serialize else value
        return config


class ImageLayer(ConfigLayer):
    """A layer of feature maps, with the channels last or first.

    Its output has the shape of its input, unless a subclass says otherwise.
    """

    config_names: ClassVar[tuple[str, ...]] = ("data_format",)

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = standardize_data_format(data_format)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    @property
    def _channels_first(self) -> bool:
        return self.data_format == "channels_first"

    @property
    def _channel_axis(self) -> int:
        return 1 if self._channels_first else -1

    @property
    def _spatial_axes(self) -> tuple[int, ...]:
        return (2, 3) if self._channels_first else (1, 2)

    def _fix_channels(self, input_shape: Shape) -> int:
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
            # Rebuilt from its config: one object would draw the same numbers
            # for every child.
            arguments[name] = keras.initializers.serialize(arguments[name])
        return {**arguments, "dtype": self.dtype_policy}
