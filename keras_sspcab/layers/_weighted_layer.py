"""The base of the layers here: what they let users say of their weights."""

from typing import Any

import keras

from keras_sspcab.checks import standardize_data_format


class WeightedLayer(keras.layers.Layer):
    """Holds the data format and the arguments of kernels and biases.

    Arguments that belong to the base layer (`name`, `dtype`,
    `activity_regularizer`, ...) are passed on.
    """

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
        super().__init__(**kwargs)
        self.data_format = standardize_data_format(data_format)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)

    @property
    def _channel_axis(self) -> int:
        return -1 if self.data_format == "channels_last" else 1

    def _num_channels(self, input_shape: tuple[int | None, ...]) -> int:
        channels = input_shape[self._channel_axis]
        if channels is None:
            raise ValueError(
                "The channel dimension of the input must be defined; the "
                "spatial ones may be None. "
                f"Received: input_shape={tuple(input_shape)}, "
                f"data_format={self.data_format!r}"
            )
        return channels

    def _child_arguments(self) -> dict[str, Any]:
        """The same arguments for a layer that this one is made of."""
        return {
            "use_bias": self.use_bias,
            # Rebuilt from its config: one object would draw the same numbers
            # for every child.
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
            "bias_initializer": keras.initializers.serialize(
                self.bias_initializer
            ),
            "kernel_regularizer": self.kernel_regularizer,
            "bias_regularizer": self.bias_regularizer,
            "kernel_constraint": self.kernel_constraint,
            "bias_constraint": self.bias_constraint,
            "dtype": self.dtype_policy,
        }

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["data_format"] = self.data_format
        config["use_bias"] = self.use_bias
        for name, module in (
            ("initializer", keras.initializers),
            ("regularizer", keras.regularizers),
            ("constraint", keras.constraints),
        ):
            for weight in ("kernel", "bias"):
                value = getattr(self, f"{weight}_{name}")
                config[f"{weight}_{name}"] = module.serialize(value)
        return config
