"""The networks of CutPaste: trunks, head and the explanation of scores."""

import os
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_sspcab.backbones import load_backbone
from keras_sspcab.hosts.graph import LAST, sspcab_block
from keras_sspcab.layers import CropLike
from keras_sspcab.scoring import GradCAM, MapUpsampling
from keras_sspcab.torch_files import read_arrays
from keras_sspcab.torch_weights import assign_torch_arrays

#: Where a block can sit in a ResNet-18: instead of the first convolution of the
#: last residual block, the trunk's penultimate, or between the third and the
#: fourth stage.
PLACES = ("penultimate", "layer3")

#: Strides of the feature maps of a pretrained network that are pooled.
TAPS = (8, 16, 32)

# Statistics of ImageNet, which files with its weights expect.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# The paper trains the head at 0.03 and pretrained layers at 1e-4.
_BACKBONE_RATE = 1e-4 / 0.03


def resnet_trunk(
    channels: int,
    base_width: int,
    places: tuple[str, ...],
    weights: str | os.PathLike | None,
    sspcab_options: dict[str, Any] | None,
    regularizer: Any,
) -> keras.Model:
    """Builds a ResNet-18 that is trained from scratch, or from a file."""
    # Any size: patches have another.
    image = keras.Input((None, None, channels))
    mean, std = np.array(_MEAN), np.array(_STD)
    if channels == 1:
        mean, std = mean.mean(keepdims=True), std.mean(keepdims=True)
    # `Rescaling` follows the global data format of Keras.
    scale, offset = (x.astype("float32") for x in (1 / std, -mean / std))
    x: Any = image * scale + offset
    x = resnet18(x, base_width, places, sspcab_options, regularizer)
    trunk = keras.Model(image, x, name="trunk")
    if weights is not None:
        load_imagenet_weights(trunk, os.fspath(weights))
    return trunk


def pretrained_trunk(
    channels: int,
    backbone: str,
    places: tuple[str, ...],
    weights: str | os.PathLike | None,
    frozen: bool,
    sspcab_options: dict[str, Any] | None,
    regularizer: Any,
) -> keras.Model:
    """Builds a trunk from a pretrained network, with the maps at `TAPS`.

    Its normalization keeps its statistics. A pretrained network cannot be cut
    open, so the block is an additional convolution behind it, in a branch of
    its own as in a residual block: whatever the block gives, what was
    pretrained stays.
    """
    network = load_backbone(backbone, TAPS, weights, channels)
    if not frozen:
        network.trainable = True
        for layer in network._flatten_layers(include_self=False):
            if isinstance(layer, layers.BatchNormalization):
                layer.trainable = False
        network.get_layer("preprocessing").trainable = False
    image = keras.Input((None, None, channels))
    maps = network(image)
    if not frozen:
        maps = [_slowed(x) for x in maps]
    if places:
        branch = sspcab_block(
            maps[-1],
            "penultimate",
            sspcab_options,
            activation=None,
            kernel_regularizer=regularizer,
        )
        maps[-1] = layers.Add(name="sspcab_add")([maps[-1], branch])
    return keras.Model(image, maps, name="trunk")


def _slowed(x: Any) -> Any:
    """Lets the layers before learn at the rate of pretrained ones.

    For SGD, a gradient times a factor is a rate times that factor.
    """
    fixed = ops.stop_gradient(x)
    # The difference is 0 to the bit.
    return fixed + _BACKBONE_RATE * (x - fixed)


def pool(maps: list[Any]) -> Any:
    """Returns the means of all maps, joined."""
    pooled = [
        layers.GlobalAveragePooling2D(
            **LAST,
            dtype="float32",
            name=f"pooled{index}" if len(maps) > 1 else "embedding",
        )(x)
        for index, x in enumerate(maps)
    ]
    if len(maps) == 1:
        return pooled[0]
    return layers.Concatenate(dtype="float32", name="embedding")(pooled)


def head(x: Any, hidden: int, classes: int, regularizer: Any) -> Any:
    """Returns the logits of the classes."""

    def dense(x: Any, units: int, name: str) -> Any:
        return layers.Dense(units, kernel_regularizer=regularizer, name=name)(x)

    units = x.shape[-1]
    for index, size in enumerate([units] * hidden + [units // 4]):
        x = dense(x, size, f"head{index}")
        x = layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, name=f"head{index}_bn"
        )(x)
        x = layers.ReLU(name=f"head{index}_relu")(x)
    x = dense(x, classes, "classes")
    return layers.Activation("linear", dtype="float32", name="logits")(x)


def explain(maps: list[Any], slope: Any, image: Any) -> Any:
    """Returns the Grad-CAM of each map, enlarged and added up."""
    if len(maps) == 1:
        return _enlarge(GradCAM(name="gradcam")(maps[0], slope), image)
    parts, start = [], 0
    for index, (x, stride) in enumerate(zip(maps, TAPS, strict=True)):
        stop = start + x.shape[-1]
        part = GradCAM(name=f"gradcam{index}")(x, slope[:, start:stop])
        part = MapUpsampling(0.0, name=f"enlarged{index}")(part, image)
        # What a place adds to the score, spread over its pixels.
        parts.append(part / stride**2)
        start = stop
    return layers.Add(dtype="float32", name="map")(parts)


def _enlarge(raw_map: Any, image: Any) -> Any:
    """Resizes a map of features to the size of the image."""
    x = ops.expand_dims(raw_map, -1)
    # One place of the features stands for 32 pixels, the last ones for fewer.
    x = layers.UpSampling2D(
        32,
        interpolation="bilinear",
        data_format="channels_last",
        dtype="float32",
        name="enlarged",
    )(x)
    return CropLike(dtype="float32", name="map")(ops.squeeze(x, -1), image)


def resnet18(
    image: Any,
    base_width: int = 64,
    places: tuple[str, ...] = (),
    sspcab_options: dict[str, Any] | None = None,
    kernel_regularizer: Any = None,
) -> Any:
    """Builds the convolutions of ResNet-18 (He et al., CVPR 2016).

    Stem and pooling are padded on both sides, which `padding="same"` does not
    do at a stride of 2. Names are those of torchvision, with `_` for the dots:
    `layer2_0_conv1` is `layer2.0.conv1` there.
    """

    def conv(x: Any, channels: int, size: int, stride: int, name: str) -> Any:
        if size > 1 and stride > 1:
            x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad", **LAST)(x)
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
            **LAST,
        )(x)

    def norm(x: Any, name: str) -> Any:
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(
            x
        )

    def relu(x: Any, name: str) -> Any:
        return layers.ReLU(name=name)(x)

    def sspcab(x: Any, place: str) -> Any:
        regularizer = {"kernel_regularizer": kernel_regularizer}
        return sspcab_block(x, place, sspcab_options, **regularizer)

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
    x = layers.ZeroPadding2D(1, name="maxpool_pad", **LAST)(x)
    x = layers.MaxPooling2D(3, 2, name="maxpool", **LAST)(x)
    for stage in range(4):
        channels = base_width * 2**stage
        name = f"layer{stage + 1}"
        x = residual(x, channels, 1 if stage == 0 else 2, f"{name}_0")
        x = residual(x, channels, 1, f"{name}_1")
        if name in places:
            x = sspcab(x, name)
    return x


def load_imagenet_weights(trunk: keras.Model, path: str) -> None:
    """Sets the weights of a trunk of the full width built by `resnet18`.

    A convolution that a block has replaced is left out, and blocks keep their
    random weights. For gray images the kernels of the three colors are summed.
    The file has the names and shapes of torchvision's `resnet18` (`.npz`,
    `.pth`, `.pt` or `.safetensors`), or is saved by `trunk.save_weights`
    (`.weights.h5`); if it does not fit, a ValueError names the arrays.
    """
    path = os.fspath(path)
    if path.endswith(".weights.h5") and os.path.isfile(path):
        try:
            trunk.load_weights(path)
        # Whatever a damaged file leads to, in Keras or HDF5.
        except Exception as error:
            raise ValueError(
                f"{path} does not hold the weights of this trunk: {error}"
            ) from error
        return
    arrays = read_arrays(path)
    stem = "conv1.weight"
    if stem in arrays and trunk.input.shape[-1] == 1:
        arrays[stem] = arrays[stem].sum(axis=1, keepdims=True)
    assign_torch_arrays(
        trunk.layers,
        arrays,
        lambda name: name.replace("_", "."),
        ignored=("fc.", "layer4.1.conv1."),
        source=f"{path} does not hold a ResNet-18 with base_width=64",
    )
