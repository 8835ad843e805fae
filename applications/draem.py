"""DRAEM: reconstruction and discrimination of simulated anomalies."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import layers

from keras_sspcab.checks import standardize_int, standardize_odd
from keras_sspcab.hosts.arguments import check_input_shape, check_places
from keras_sspcab.hosts.base import (
    AnomalyModel,
    HostGuide,
    PublishedEvaluation,
    Settings,
)
from keras_sspcab.hosts.graph import (
    LAST,
    normalized_relu,
    padded_conv,
    sspcab_block,
)
from keras_sspcab.hosts.published import (
    array_of,
    load_arrays,
    read_checkpoint,
    sides,
    stage_names,
    swap_colors,
    with_blocks,
)
from keras_sspcab.hosts.registry import register_application
from keras_sspcab.losses import FocalLoss, ReconstructionLoss
from keras_sspcab.optimizers import PyTorchAdam
from keras_sspcab.scoring import (
    AnomalyProbability,
    Calibration,
    MapPooling,
    MapSmoothing,
)

PLACES = ("reconstructive", "discriminative", "bottleneck")

# Both networks in the published checkpoints, and where blocks replace layers.
_NAMES = {
    **stage_names(r"reconstructive_encoder(\d)", r"encoder.block\1"),
    **stage_names(r"reconstructive_decoder(\d)", r"decoder.db\1"),
    r"reconstructive_decoder(\d)_conv0": r"decoder.up\1.1",
    r"reconstructive_decoder(\d)_conv0_norm": r"decoder.up\1.2",
    "sspcab_reconstructive_norm": "decoder.db4.4",
    "reconstruction_conv": "decoder.fin_out.0",
    **stage_names(r"discriminative_encoder(\d)", r"encoder_segment.block\1"),
    "sspcab_discriminative_norm": "decoder_segment.db4.4",
    "segmentation_conv": "decoder_segment.fin_out.0",
}
for _stage, _name in enumerate(("_b", "1", "2", "3", "4"), 1):
    _layer = f"discriminative_decoder{_stage}"
    _NAMES |= stage_names(_layer, f"decoder_segment.db{_name}")
    _NAMES[f"{_layer}_conv0"] = f"decoder_segment.up{_name}.1"
    _NAMES[f"{_layer}_conv0_norm"] = f"decoder_segment.up{_name}.2"
_BLOCKS = {
    "reconstructive": "decoder.db4.3",
    "discriminative": "decoder_segment.db4.3",
    "bottleneck": "encoder.block5",
}
_NAMES |= {f"sspcab_{place}": name for place, name in _BLOCKS.items()}

# What anomalib's names of both networks begin with.
_ANOMALIB = ("reconstructive_subnetwork.", "discriminative_subnetwork.")


@register_application("draem")
@keras.saving.register_keras_serializable(package="keras_sspcab")
class DRAEM(AnomalyModel):
    """Finds anomalies by what training on simulated ones has taught it.

    Two networks are trained jointly. The reconstructive one, an auto-encoder
    without skip connections, turns an image with a simulated anomaly into the
    clean one. The discriminative one, a U-Net, sees the reconstruction and the
    image and marks the anomaly, pixel by pixel. `fit` takes normal images and
    simulates the anomalies: out-of-distribution textures inside masks of Perlin
    noise (`keras_sspcab.data.simulate_anomalies`).

    References:
    - [Zavrtanik et al., ICCV 2021](https://arxiv.org/abs/2108.07610), and its
      code, which differs from the paper: weight 1 of the SSIM, opacity of the
      texture in (0.2, 1], noise cut at 0.5, rates multiplied by 0.2. Mean over
      MVTec AD: image AUROC 98.0 %, pixel AUROC 97.3 %, pixel AP 68.4 %.
    - [Ristea et al., CVPR 2022](https://arxiv.org/abs/2111.09099), Table 2:
      with the block 98.9 %, 97.2 % and 69.9 %.

    Args:
        input_shape: `(height, width, channels)`, the sizes multiples of 32, or
            None for any such. Defaults to the paper's `(256, 256, 3)`.
        sspcab: Where blocks sit: `"reconstructive"` and `"discriminative"` (the
            penultimate convolutions of these networks), `"bottleneck"` (instead
            of the innermost stage of the reconstructive one), several of them,
            or None. Defaults to the first two.
        base_width: Channels of the first stage of the reconstructive network,
            doubled three times. Defaults to 128, the paper's; a step with 16
            takes a CPU a second or two.
        discriminative_width: The same for the discriminative network; None
            (the default) takes half of `base_width`.
        ssim_weight: Weight of the dissimilarity in the loss of the
            reconstruction. Defaults to 1.
        smoothing: Odd integer, side in pixels of the mean filter over the map
            before its maximum becomes the score. Defaults to 21.
        texture_folder: Folder of texture images, such as DTD, for the simulated
            anomalies; any depth. None (the default) makes textures from the
            training images and scikit-image's pictures. Read by `fit` only.
        anomaly_probability: Share of the training images that get an anomaly.
            Defaults to 0.5.

    All other arguments are those of `AnomalyModel`.

    Attributes: `ssim_weight`, `texture_folder` and `anomaly_probability`, the
    arguments that are for training.

    Outputs besides the shared ones: `reconstruction` `(batch, height, width,
    channels)` and `segmentation`, the logits `(batch, height, width, 2)`.

    Example:
    >>> model = DRAEM((32, 32, 3), base_width=2)
    >>> model.output["segmentation"].shape
    (None, 32, 32, 2)
    """

    # An eighth of the paper's width: a step takes seconds on a CPU.
    default_settings: ClassVar[Settings] = {
        "model": {"base_width": 16},
        "training": {"epochs": 100, "batch_size": 8},
    }

    published_resize: ClassVar[str] = "opencv"

    published_evaluation: ClassVar[PublishedEvaluation] = PublishedEvaluation(
        "the score is the maximum of the map's means over 21x21 pixels; of "
        "resized masks, only pixels count that are defective as a whole",
        {"model.smoothing": 21, "evaluation.masks": "whole"},
    )

    guide: ClassVar[HostGuide] = HostGuide(
        purpose="small defects with a sharp outline; learns from simulated "
        "ones",
        training_time="an eighth of the width, 5,000 steps of 128x128: an hour "
        "of one core",
        expectation="after these, image AUROC 0.65 on magnetic tiles; maps "
        "find holes and cracks there, no soft shades",
        needs_gpu=True,
    )

    def __init__(
        self,
        input_shape: Sequence[int | None] = (256, 256, 3),
        sspcab: str | Sequence[str] | None = PLACES[:2],
        base_width: int = 128,
        discriminative_width: int | None = None,
        sspcab_options: dict[str, Any] | None = None,
        ssim_weight: float = 1.0,
        smoothing: int = 21,
        texture_folder: str | os.PathLike | None = None,
        anomaly_probability: float = 0.5,
        calibration: Calibration | dict[str, Any] | None = None,
        name: str = "draem",
    ) -> None:
        # Five poolings halve the image.
        shape = check_input_shape(input_shape, multiple_of=32)
        places = check_places(sspcab, PLACES)
        width = standardize_int(base_width, "base_width", 2)
        if discriminative_width is None:
            discriminative_width = width // 2
        discriminative_width = standardize_int(
            discriminative_width, "discriminative_width", 1
        )
        if not 0 < anomaly_probability <= 1:
            raise ValueError(
                "`anomaly_probability` must be above 0 and at most 1. "
                f"Received: anomaly_probability={anomaly_probability}"
            )

        def output(x: Any, channels: int, name: str) -> Any:
            x = _conv(x, channels, f"{name}_conv")
            # float32 under mixed precision too: losses and scores need it.
            return layers.Activation("linear", dtype="float32", name=name)(x)

        networks = _Networks(places, sspcab_options)
        image = keras.Input(shape, name="image")
        x = networks.reconstructive(image, width)
        reconstruction = output(x, shape[-1], "reconstruction")
        x = layers.Concatenate(name="image_pair")([reconstruction, image])
        x = networks.discriminative(x, discriminative_width)
        segmentation = output(x, 2, "segmentation")
        raw_map = AnomalyProbability(name="probability")(segmentation)
        side = standardize_odd(smoothing, "smoothing")
        smoothed = MapSmoothing(side, padding="zeros", name="smoothing")(
            raw_map
        )
        raw_score = MapPooling("max", name="pooling")(smoothed)
        super().__init__(
            inputs=image,
            outputs=self.detector_outputs(
                raw_score,
                raw_map,
                calibration,
                reconstruction=reconstruction,
                segmentation=segmentation,
            ),
            name=name,
        )
        self.ssim_weight = ssim_weight
        self.texture_folder = texture_folder
        self.anomaly_probability = anomaly_probability

    @classmethod
    def from_published(
        cls,
        path: str | os.PathLike,
        segmentation_path: str | os.PathLike | None = None,
        image_size: int | Sequence[int | None] = 256,
        channel_order: str | None = None,
        **arguments: Any,
    ) -> "DRAEM":
        """Makes the model of a published checkpoint.

        Widths and blocks are found from the arrays. Images are RGB, as always:
        the colors of a network that was trained on BGR are turned around.

        Args:
            path: State dict of the reconstructive network, or of both, as
                anomalib has them: `.pckl`, `.pth`, `.safetensors` or `.npz`.
            segmentation_path: That of the discriminative network.
            image_size: Height and width, or a number for squares; None for
                any. Defaults to 256.
            channel_order: `"bgr"` or `"rgb"`, the order of the colors that the
                checkpoint was trained on. Defaults to the authors', BGR; for
                anomalib's names to RGB.
            **arguments: As of the constructor, for what is not in the arrays.

        Raises:
            ValueError: If the files do not fit.

        Source: names and order of the channels are those of the authors' public
        code. anomalib's takes the image before its reconstruction, and the
        maximum of the map as score (`smoothing=1`).

        Example:
        >>> DRAEM.from_published("DRAEM.pckl", "DRAEM_seg.pckl")
        Traceback (most recent call last):
        ...
        ValueError: There is no file with weights at 'DRAEM.pckl'
        """
        arrays = read_checkpoint(path)
        if segmentation_path is not None:
            arrays |= read_checkpoint(segmentation_path)
        names = [name.removeprefix("model.") for name in arrays]
        is_anomalib = all(name.startswith(_ANOMALIB) for name in names)
        if is_anomalib:
            arrays = {
                name.partition(".")[2]: array
                for name, array in zip(names, arrays.values(), strict=True)
            }
            arguments = {"smoothing": 1, **arguments}
        first = "encoder.block1.0.weight"
        pair = "encoder_segment.block1.0.weight"
        width, channels = array_of(arrays, first, path).shape[:2]
        weight = array_of(arrays, pair, segmentation_path or path)
        if is_anomalib:
            arrays[pair] = np.roll(weight, channels, axis=1)
        output = _NAMES["reconstruction_conv"]
        swap_colors(
            arrays,
            channel_order or ("rgb" if is_anomalib else "bgr"),
            channels,
            {first: channels, pair: 2 * channels},
            (f"{output}.weight", f"{output}.bias"),
        )
        model = cls(
            (*sides(image_size), channels),
            base_width=width,
            discriminative_width=weight.shape[0],
            **with_blocks(arguments, arrays, _BLOCKS),
        )
        load_arrays(model, arrays, _NAMES, path)
        return model

    def default_optimizer(
        self, learning_rate: float | None = None, steps: int | None = None
    ) -> keras.optimizers.Optimizer:
        """Adam at 1e-4, a fifth of it after 80 % and again after 90 %."""
        rate: Any = 1e-4 if learning_rate is None else learning_rate
        if steps is not None:
            rate = keras.optimizers.schedules.PiecewiseConstantDecay(
                [round(0.8 * steps), round(0.9 * steps)],
                [rate, 0.2 * rate, 0.04 * rate],
            )
        return PyTorchAdam(rate)

    def default_losses(self) -> dict[str, Any]:
        """Squared error and SSIM, and the focal loss of the segmentation."""
        return {
            "reconstruction": ReconstructionLoss(self.ssim_weight),
            "segmentation": FocalLoss(),
        }

    def prepare_training_data(self, data: Any) -> Any:
        """Simulates anomalies in some of the images."""
        from keras_sspcab.data import simulate_anomalies

        return simulate_anomalies(
            data,
            self.texture_folder,
            anomaly_probability=self.anomaly_probability,
            seed=np.random.randint(2**31),
        )


@dataclasses.dataclass(frozen=True)
class _Networks:
    """Builds both networks, with blocks at the given places."""

    places: tuple[str, ...]
    sspcab_options: dict[str, Any] | None

    def reconstructive(self, x: Any, width: int) -> Any:
        for stage, factor in enumerate((1, 2, 4, 8), 1):
            name = f"reconstructive_encoder{stage}"
            x = self.stage(x, 2 * (factor * width,), name)
            x = layers.MaxPooling2D(name=f"{name}_pool", **LAST)(x)
        if "bottleneck" in self.places:
            x = self.block(x, "bottleneck")
        else:
            x = self.stage(x, 2 * (8 * width,), "reconstructive_encoder5")
        for stage, factor in enumerate((8, 4, 2, 1), 1):
            name = f"reconstructive_decoder{stage}"
            wide = factor * width
            narrow = max(wide // 2, width)
            place = "reconstructive" if stage == 4 else None
            x = self.up(x, wide, name)
            x = self.stage(x, (wide, narrow), name, place)
        return x

    def discriminative(self, x: Any, width: int) -> Any:
        skips = []
        for stage, factor in enumerate((1, 2, 4, 8, 8), 1):
            name = f"discriminative_encoder{stage}"
            x = self.stage(x, 2 * (factor * width,), name)
            skips.append(x)
            x = layers.MaxPooling2D(name=f"{name}_pool", **LAST)(x)
        x = self.stage(x, 2 * (8 * width,), "discriminative_encoder6")
        for stage, factor in enumerate((8, 4, 2, 1, 1), 1):
            name = f"discriminative_decoder{stage}"
            place = "discriminative" if stage == 5 else None
            x = self.up(x, factor * width, name)
            x = layers.Concatenate(name=f"{name}_skip")([x, skips.pop()])
            x = self.stage(x, 2 * (factor * width,), name, place)
        return x

    def stage(
        self,
        x: Any,
        channels: tuple[int, int],
        name: str,
        place: str | None = None,
    ) -> Any:
        """Two convolutions, the second of them a block if `place` says so."""
        x = self.activate(_conv(x, channels[0], f"{name}_conv1"))
        if place in self.places:
            return self.activate(self.block(x, place))
        return self.activate(_conv(x, channels[1], f"{name}_conv2"))

    def up(self, x: Any, channels: int, name: str) -> Any:
        return self.activate(_conv(x, channels, f"{name}_conv0", enlarges=True))

    def block(self, x: Any, place: str) -> Any:
        # The reference draws the kernels of all its convolutions like this.
        return sspcab_block(
            x,
            place,
            self.sspcab_options,
            initializer="authors",
            kernel_initializer=keras.initializers.RandomNormal(0.0, 0.02),
        )

    def activate(self, x: Any) -> Any:
        gamma = keras.initializers.RandomNormal(1.0, 0.02)
        name = x._keras_history.operation.name
        return normalized_relu(x, name, gamma_initializer=gamma)


def _conv(x: Any, channels: int, name: str, **arguments: Any) -> Any:
    kernel = keras.initializers.RandomNormal(0.0, 0.02)
    return padded_conv(
        x, channels, name, kernel_initializer=kernel, **arguments
    )
