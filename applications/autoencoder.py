"""The plain auto-encoder of the SSPCAB paper."""

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import layers

from keras_sspcab.checks import standardize_odd
from keras_sspcab.hosts.arguments import check_input_shape, check_places
from keras_sspcab.hosts.base import AnomalyModel, HostGuide, Settings
from keras_sspcab.hosts.graph import LAST, padded_conv, sspcab_block
from keras_sspcab.hosts.registry import register_application
from keras_sspcab.layers import CropLike
from keras_sspcab.scoring import (
    Calibration,
    MapPooling,
    MapSmoothing,
    SquaredError,
)

PLACES = ("early", "middle", "late")


@register_application("autoencoder")
@keras.saving.register_keras_serializable(package="keras_sspcab")
class AutoEncoder(AnomalyModel):
    """Convolutional auto-encoder that scores by its reconstruction error.

    Three 3x3 convolutions with ReLU and 2x2 max-pooling down to an eighth of
    the size, three nearest-neighbor up-samplings with a convolution each, and
    one output convolution. Fully convolutional: it can be trained on small
    patches and applied to large images.

    References:
    - [Ristea et al., CVPR 2022](https://arxiv.org/abs/2111.09099), Tables 1, 4
      and 5: this network on object crops of Avenue, without skip connections
      (micro AUC 80.0 % without the block, 85.9 % with it, late).
    - Georgescu et al., "A Background-Agnostic Framework with Adversarial
      Training for Abnormal Event Detection in Video", TPAMI 2021, for the
      layers.

    Args:
        input_shape: `(height, width, channels)`; height and width may be None
            or any number. Sizes that are no multiple of 8 are rounded up inside
            and cropped again. Defaults to `(64, 64, 1)`, the paper's crops.
        sspcab: Which convolutions, with as many input as output channels, a
            block replaces: `"early"`, the second of the encoder, `"middle"`,
            the first of the decoder, `"late"` (the default), its third and
            penultimate, several of them, or None.
        filters: Channels of the three encoder convolutions, the first two
            equal. Defaults to `(32, 32, 16)`.
        output_activation: Activation of the reconstruction. Defaults to
            `"sigmoid"`, for images in [0, 1].
        smoothing: Odd integer, side in pixels of a mean filter over the error
            map. Defaults to 1, none.
        pooling: How the map becomes one score: `"mean"` (the paper's crops) or
            `"max"` (small defects in large images).

    All other arguments are those of `AnomalyModel`.

    Example:
    >>> AutoEncoder(input_shape=(64, 64, 1)).count_params()
    25957
    """

    # Small defects in large images: the largest smoothed error counts.
    default_settings: ClassVar[Settings] = {
        "data": {"patch_size": 64},
        "model": {"sspcab": "late", "pooling": "max", "smoothing": 11},
    }

    guide: ClassVar[HostGuide] = HostGuide(
        purpose="regular textures with coarse defects; the smallest network",
        expectation="drawn defects: in bricks image AUROC 0.82 after 300 "
        "steps, in gravel, as fine as its defects, chance",
    )

    def __init__(
        self,
        input_shape: Sequence[int | None] = (64, 64, 1),
        sspcab: str | Sequence[str] | None = "late",
        filters: Sequence[int] = (32, 32, 16),
        sspcab_options: dict[str, Any] | None = None,
        output_activation: str = "sigmoid",
        smoothing: int = 1,
        pooling: str = "mean",
        calibration: Calibration | dict[str, Any] | None = None,
        name: str = "autoencoder",
    ) -> None:
        shape = check_input_shape(input_shape)
        image = keras.Input(shape, name="image")
        reconstruction = reconstruct(
            image,
            check_places(sspcab, PLACES),
            filters,
            sspcab_options,
            output_activation,
        )
        raw_map = SquaredError(name="error_map")(image, reconstruction)
        side = standardize_odd(smoothing, "smoothing")
        raw_map = MapSmoothing(side, name="smoothing")(raw_map)
        raw_score = MapPooling(pooling, name="pooling")(raw_map)
        super().__init__(
            inputs=image,
            outputs=self.detector_outputs(
                raw_score, raw_map, calibration, reconstruction=reconstruction
            ),
            name=name,
        )

    def default_losses(self) -> dict[str, Any]:
        """Mean squared error of the reconstruction."""
        return {"reconstruction": keras.losses.MeanSquaredError()}

    def training_targets(self, x: Any, y: Any) -> dict[str, Any]:
        """The image itself, or the one given (to train on denoising)."""
        target = x if y is None else y
        # TensorFlow forgets the rank where it varied between calls.
        if getattr(target.shape, "rank", 0) is not None and (
            len(target.shape) != 4
        ):
            raise ValueError(
                "The target of an auto-encoder is an image of the input's "
                "shape, or nothing. Received a target of shape "
                f"{tuple(target.shape)}; for data with labels, pass only the "
                "images."
            )
        return {"reconstruction": target}


def reconstruct(
    image: Any,
    places: Sequence[str],
    filters: Sequence[int],
    options: dict[str, Any] | None,
    output_activation: str,
) -> Any:
    """Returns an image as the paper's network reconstructs it.

    The arguments are those of `AutoEncoder`.
    """
    first, second, latent = _check_filters(filters)

    def conv(x: Any, channels: int, name: str, place: str = "") -> Any:
        if place in places:
            return sspcab_block(x, place, options)
        return padded_conv(x, channels, name, activation="relu")

    def pool(x: Any, name: str) -> Any:
        return layers.MaxPooling2D(padding="same", name=name, **LAST)(x)

    def up(x: Any, like: Any, index: int) -> Any:
        x = layers.UpSampling2D(name=f"upsampling{index}", **LAST)(x)
        if x.shape[1:3] == like.shape[1:3] and None not in x.shape[1:3]:
            return x
        return CropLike(name=f"crop{index}")(x, like)

    encoded1 = conv(image, first, "encoder_conv1")
    pooled1 = pool(encoded1, "encoder_pool1")
    encoded2 = conv(pooled1, second, "encoder_conv2", "early")
    pooled2 = pool(encoded2, "encoder_pool2")
    encoded3 = conv(pooled2, latent, "encoder_conv3")
    x = pool(encoded3, "encoder_pool3")
    x = conv(up(x, encoded3, 1), latent, "decoder_conv1", "middle")
    x = conv(up(x, encoded2, 2), second, "decoder_conv2")
    x = conv(up(x, encoded1, 3), second, "decoder_conv3", "late")
    x = padded_conv(x, image.shape[-1], "decoder_conv4")
    # float32 under mixed precision too: the score is a small difference.
    return layers.Activation(
        output_activation, dtype="float32", name="reconstruction"
    )(x)


def _check_filters(filters: Sequence[int]) -> tuple[int, int, int]:
    filters = tuple(filters)
    if len(filters) != 3 or min(filters) < 1 or filters[0] != filters[1]:
        raise ValueError(
            "`filters` must be three positive integers, the first two equal "
            "(the places of the block need as many input as output channels). "
            f"Received: filters={filters}"
        )
    return filters[0], filters[1], filters[2]
