"""The patch discriminator of future frame prediction."""

from typing import Any

import keras
from keras import layers, ops


def patch_discriminator(
    channels: int, base_width: int = 128, name: str = "discriminator"
) -> keras.Model:
    """Builds the network that tells true frames from predicted ones.

    Five 4x4 convolutions, each behind a reflecting margin of two pixels, the
    first three with stride 2: each output is the judgment of a patch of the
    frame. No normalization.

    References:
    - Isola et al., CVPR 2017 (pix2pix), as configured in the code of
      [Liu et al., CVPR 2018](https://arxiv.org/abs/1712.09867)

    Args:
        channels: Channels of the frames.
        base_width: Filters of the first convolution, doubled twice. Defaults
            to 128, with which it has 6,831,489 parameters on color images.
        name: Name of the model.

    Returns:
        A model from `(batch, height, width, channels)`, 16 pixels a side at
        least, to `(batch, rows, columns, 1)` in (0, 1).
    """
    filters = [base_width, 2 * base_width, 4 * base_width, 4 * base_width, 1]
    frame = keras.Input((None, None, channels), name="frame")
    x: Any = frame
    for index, (number, stride) in enumerate(
        zip(filters, (2, 2, 2, 1, 1), strict=True), 1
    ):
        margin = ((0, 0), (2, 2), (2, 2), (0, 0))
        x = layers.Conv2D(
            number,
            4,
            strides=stride,
            data_format="channels_last",
            name=f"conv{index}",
        )(ops.pad(x, margin, mode="reflect"))
        if index < len(filters):
            x = layers.LeakyReLU(0.2, name=f"relu{index}")(x)
    judgment = layers.Activation("sigmoid", dtype="float32", name="judgment")
    return keras.Model(frame, judgment(x), name=name)
