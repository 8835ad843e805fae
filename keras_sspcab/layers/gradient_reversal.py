"""Reversal of the gradient, for two parts that work against each other."""

from typing import Any

import keras
from keras import ops

from keras_sspcab.checks import standardize_number
from keras_sspcab.layers.base import ConfigLayer, Shape


@keras.saving.register_keras_serializable(package="keras_sspcab")
class GradientReversal(ConfigLayer):
    """Passes its input on; turns the gradient round on its way back.

    What is behind the layer learns to make a loss small. What is before it gets
    the gradient times `-weight`, and learns to make the same loss large.

    Reference:
    - [Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation",
      ICML 2015](https://arxiv.org/abs/1409.7495)

    Args:
        weight: Float of at least 0, the strength of the reversal. 0 stops the
            gradient. Defaults to `1.0`.

    Input and output shape:
        Any; finite floating point values stay the same to the bit.

    Example:
    >>> ops.convert_to_numpy(GradientReversal(0.5)(np.array([1.0, -2.0])))
    array([ 1., -2.], dtype=float32)
    """

    config_names = ("weight",)

    def __init__(self, weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weight = standardize_number(weight, "weight")

    def call(self, inputs: Any) -> Any:
        fixed = ops.stop_gradient(inputs)
        # The difference is 0 to the bit, whatever a compiler makes of it.
        return fixed - self.weight * (inputs - fixed)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)
