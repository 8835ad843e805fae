"""ResNet-18, the trunk of CutPaste."""

from typing import Any

import keras
from keras import layers

from keras_sspcab.layers import SSPCABLayer

#: Where a block can sit: instead of the first convolution of the last residual
#: block, the trunk's penultimate, or between the third and the fourth stage.
PLACES = ("penultimate", "layer3")

_LAST: dict[str, Any] = {"data_format": "channels_last"}


def resnet18(
    image: Any,
    base_width: int = 64,
    places: tuple[str, ...] = (),
    sspcab_options: dict[str, Any] | None = None,
    kernel_regularizer: Any = None,
) -> Any:
    """Builds the convolutions of ResNet-18.

    Stem and pooling are padded on both sides, which `padding="same"` does not
    do at a stride of 2. Names are those of torchvision, with `_` for the dots:
    `layer2_0_conv1` is `layer2.0.conv1` there.

    References:
    - He et al., "Deep residual learning for image recognition", CVPR 2016

    Args:
        image: Symbolic tensor `(batch, height, width, channels)`.
        base_width: Channels of the stem and the first stage, doubled in each of
            the following three. Defaults to 64, the paper's.
        places: Where blocks sit, among `PLACES`. Normalization and ReLU after a
            replaced convolution are kept.
        sspcab_options: Arguments of the `SSPCABLayer`s.
        kernel_regularizer: Regularizer of all kernels, also the blocks'.

    Returns:
        Symbolic tensor of the last feature map, a 32nd of the height and width,
        with `8 * base_width` channels.
    """

    def conv(x: Any, channels: int, size: int, stride: int, name: str) -> Any:
        if size > 1 and stride > 1:
            x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad", **_LAST)(x)
        return layers.Conv2D(
            channels,
            size,
            strides=stride,
            padding="valid" if stride > 1 else "same",
            use_bias=False,
            kernel_initializer=keras.initializers.VarianceScaling(
                2.0, "fan_out", "untruncated_normal"
            ),
            kernel_regularizer=kernel_regularizer,
            name=name,
            **_LAST,
        )(x)

    def norm(x: Any, name: str) -> Any:
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(
            x
        )

    def relu(x: Any, name: str) -> Any:
        return layers.ReLU(name=name)(x)

    def sspcab(x: Any, place: str) -> Any:
        options = {
            "name": f"sspcab_{place}",
            "kernel_regularizer": kernel_regularizer,
            **_LAST,
            **(sspcab_options or {}),
        }
        return SSPCABLayer(**options)(x)

    def residual(x: Any, channels: int, stride: int, name: str) -> Any:
        identity = x
        if stride > 1:
            name_ = f"{name}_downsample"
            identity = conv(x, channels, 1, stride, f"{name_}_0")
            identity = norm(identity, f"{name_}_1")
        if name == "layer4_1" and "penultimate" in places:
            x = sspcab(x, "penultimate")
        else:
            x = conv(x, channels, 3, stride, f"{name}_conv1")
        x = relu(norm(x, f"{name}_bn1"), f"{name}_relu1")
        x = norm(conv(x, channels, 3, 1, f"{name}_conv2"), f"{name}_bn2")
        x = layers.Add(name=f"{name}_add")([x, identity])
        return relu(x, f"{name}_relu2")

    x = conv(image, base_width, 7, 2, "conv1")
    x = relu(norm(x, "bn1"), "relu")
    x = layers.ZeroPadding2D(1, name="maxpool_pad", **_LAST)(x)
    x = layers.MaxPooling2D(3, 2, name="maxpool", **_LAST)(x)
    for stage in range(4):
        channels = base_width * 2**stage
        name = f"layer{stage + 1}"
        x = residual(x, channels, 1 if stage == 0 else 2, f"{name}_0")
        x = residual(x, channels, 1, f"{name}_1")
        if name in places:
            x = sspcab(x, name)
    return x
