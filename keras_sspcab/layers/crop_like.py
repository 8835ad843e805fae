"""Cropping to the size of another tensor."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_sspcab")
class CropLike(keras.layers.Layer):
    """Crops a map at its lower and right border to the size of another.

    Call arguments:
        inputs: Tensor `(batch, height, width, ...)`.
        reference: Tensor of at most that height and width.
    """

    def call(self, inputs: Any, reference: Any) -> Any:
        shape = ops.shape(reference)
        return inputs[:, : shape[1], : shape[2]]

    def compute_output_shape(
        self,
        inputs_shape: tuple[int | None, ...],
        reference_shape: tuple[int | None, ...],
    ) -> tuple[int | None, ...]:
        return (inputs_shape[0], *reference_shape[1:3], *inputs_shape[3:])
