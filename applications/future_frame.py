"""Future frame prediction: what cannot be foreseen is abnormal."""

import os
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import layers, ops

from keras_sspcab.applications.adversarial import (
    AdversarialModel,
    patch_discriminator,
)
from keras_sspcab.checks import standardize_int
from keras_sspcab.hosts.arguments import (
    check_clip_shape,
    check_places,
    check_weights,
)
from keras_sspcab.hosts.base import HostGuide, PublishedEvaluation, Settings
from keras_sspcab.hosts.graph import (
    LAST,
    output_frame,
    padded_conv,
    sspcab_block,
    stacked_frames,
)
from keras_sspcab.hosts.published import (
    array_of,
    load_arrays,
    read_tf_checkpoint,
    sides,
    swap_colors,
)
from keras_sspcab.hosts.registry import register_application
from keras_sspcab.losses import gradient_difference, least_squares, resolve_flow
from keras_sspcab.scoring import (
    Calibration,
    MapPooling,
    PeakSignalToNoise,
    SquaredError,
)

# The generator in the published checkpoints, which number what is alike.
_CONVS = [
    f"{part}{stage}_conv{index}"
    for part, stages in (("encoder", 4), ("decoder", 3))
    for stage in range(1, stages + 1)
    for index in (1, 2)
]
_NAMES = {
    name: f"generator/Conv_{number}".removesuffix("_0")
    for number, name in enumerate([*_CONVS, "output_conv"])
}
for _stage, _suffix in enumerate(("", "_1", "_2"), 1):
    _NAMES[f"decoder{_stage}_up"] = f"generator/Conv2d_transpose{_suffix}"


@register_application("future_frame")
@keras.saving.register_keras_serializable(package="keras_sspcab")
class FutureFrame(AdversarialModel):
    """Predicts the last frame of a clip from those before, and scores by PSNR.

    A U-Net predicts; it is trained to be right in brightness, in edges and in
    motion (the optical flow from the frame before), and to deceive a patch
    discriminator, which is trained along with it. `raw_score` is the negative
    PSNR of the prediction in dB, the map its squared error, both of frames in
    [0, 1]. For the measure of the paper, bring the PSNR of each video to [0, 1]
    (`keras_sspcab.metrics`).

    References:
    - [Liu et al., CVPR 2018](https://arxiv.org/abs/1712.09867), and its code.
      Frame AUC 95.4 % on Ped2, 84.9 to 85.1 % on Avenue, 72.8 % on
      ShanghaiTech.
    - [Ristea et al., CVPR 2022](https://arxiv.org/abs/2111.09099), Table 3:
      with the block 87.3 % on Avenue and 74.5 % on ShanghaiTech.

    Args:
        input_shape: `(frames, height, width, channels)`, two frames at least;
            height and width multiples of 8 and at least 16, or None. Defaults
            to the paper's `(5, 256, 256, 3)`.
        sspcab: `"penultimate"` (the default; instead of the last convolution
            but one of the U-Net) or None.
        base_width: Channels of the first stage, doubled three times; the
            discriminator begins with twice as many. Defaults to 64, the
            paper's; 8 trains on a CPU.
        intensity_weight: Weight of the squared error. Defaults to 1; the paper
            takes 0.001 for Avenue.
        gradient_weight: Weight of the difference of edges. Defaults to 1.
        flow_weight: Weight of the difference of flows, in pixels. Defaults to
            2; the paper takes 0.01 for Ped1.
        adversarial_weight: Weight of deceiving the discriminator. Defaults to
            0.05. 0 leaves the discriminator out.
        drop_step: Step after which both rates fall to a tenth. None (the
            default) takes half of the training, if its length is known; the
            paper has one for each data set.
        flow_estimator: `"lucas_kanade"` (the default), `"none"`, or for another
            the path of a `.keras` file, a Keras model, or a function of two
            frames; see `keras_sspcab.losses.resolve_flow`. Needed in training
            only. Functions and models are not kept in files: see
            `set_flow_estimator`.

    All other arguments are those of `AnomalyModel`.

    Outputs besides the shared ones: `prediction`, `(batch, height, width,
    channels)` in [0, 1].

    Example:
    >>> model = FutureFrame((3, 32, 32, 1), base_width=2)
    >>> model.output["prediction"].shape
    (None, 32, 32, 1)
    """

    default_settings: ClassVar[Settings] = {"model": {"base_width": 8}}

    published_resize: ClassVar[str] = "opencv"

    published_evaluation: ClassVar[PublishedEvaluation] = PublishedEvaluation(
        "PSNR brought to [0, 1] in each video; no smoothing; frames without a "
        "prediction left out",
        {
            "evaluation.normalization": "per_video",
            "evaluation.smoothing": "none",
        },
    )

    guide: ClassVar[HostGuide] = HostGuide(
        purpose="whole frames: predicts the next one",
        training_time="small width: 3 to 5 minutes (UCSD Ped2, 64x96, 3 "
        "epochs)",
        expectation="small width: micro AUC 80 on UCSD Ped2",
    )

    def __init__(
        self,
        input_shape: Sequence[int | None] = (5, 256, 256, 3),
        sspcab: str | Sequence[str] | None = "penultimate",
        base_width: int = 64,
        sspcab_options: dict[str, Any] | None = None,
        intensity_weight: float = 1.0,
        gradient_weight: float = 1.0,
        flow_weight: float = 2.0,
        adversarial_weight: float = 0.05,
        flow_estimator: Any = "lucas_kanade",
        drop_step: int | None = None,
        calibration: Calibration | dict[str, Any] | None = None,
        name: str = "future_frame",
    ) -> None:
        # Three poolings; the discriminator mirrors two pixels of an eighth.
        shape = check_clip_shape(input_shape, 8, 16)
        places = check_places(sspcab, ["penultimate"])
        width = standardize_int(base_width, "base_width", 1)
        weights = check_weights(
            intensity=intensity_weight,
            gradient=gradient_weight,
            flow=flow_weight,
            adversarial=adversarial_weight,
        )

        # === Functional model ===
        clip = keras.Input(shape, name="clip")
        x = _unet(
            stacked_frames(clip, shape[0] - 1), width, places, sspcab_options
        )
        prediction = output_frame(x, shape[-1])
        raw_map = SquaredError(name="error_map")(clip[:, -1], prediction)
        error = MapPooling("mean", name="pooling")(raw_map)
        raw_score = -PeakSignalToNoise(name="psnr")(error)
        super().__init__(
            inputs=clip,
            outputs=self.detector_outputs(
                raw_score, raw_map, calibration, prediction=prediction
            ),
            name=name,
        )

        # === What is there for training ===
        self.set_discriminator(
            patch_discriminator(shape[-1], 2 * width)
            if weights["adversarial"]
            else None
        )
        self._weights = weights
        if drop_step is not None:
            drop_step = standardize_int(drop_step, "drop_step", 1)
        self._drop_step = drop_step
        self.set_flow_estimator(flow_estimator)

    @classmethod
    def from_published(
        cls,
        checkpoint: str | os.PathLike,
        image_size: int | Sequence[int | None] = 256,
        channel_order: str = "bgr",
        **arguments: Any,
    ) -> "FutureFrame":
        """Makes the model of a published checkpoint of TensorFlow 1.

        The generator is loaded: it is what scores. Frames are RGB, as always:
        the colors of a network that was trained on BGR are turned around.

        Args:
            checkpoint: What its files begin with, such as `model.ckpt-80000`,
                or a `.npz` of its variables.
            image_size: Height and width, or a number for squares; None for
                any. Defaults to 256.
            channel_order: `"bgr"` (the default, the authors') or `"rgb"`, the
                order of the colors that the checkpoint was trained on.
            **arguments: As of the constructor, for what is not in the files.

        Raises:
            ValueError: If the files do not fit.

        Source: names of variables are those of the authors' public code. There
        is none with a block.

        Example:
        >>> FutureFrame.from_published("weights.npz")
        Traceback (most recent call last):
        ...
        ValueError: There is no file with weights at 'weights.npz'
        """
        arrays = read_tf_checkpoint(checkpoint)
        first, last = "generator/Conv", _NAMES["output_conv"]
        weight = array_of(arrays, f"{first}.weight", checkpoint)
        channels = array_of(arrays, f"{last}.bias", checkpoint).shape[0]
        width, stacked = weight.shape[:2]
        swap_colors(
            arrays,
            channel_order,
            channels,
            {f"{first}.weight": stacked},
            (f"{last}.weight", f"{last}.bias"),
        )
        model = cls(
            (stacked // channels + 1, *sides(image_size), channels),
            sspcab=None,
            base_width=width,
            **arguments,
        )
        others = ("discriminator/", "FlowNetSD/")
        load_arrays(model, arrays, _NAMES, checkpoint, others)
        return model

    def set_flow_estimator(self, flow_estimator: Any) -> None:
        """Sets the flow estimator, as the argument of the constructor does.

        Compile the model again where this adds or removes the flow.
        """
        self._flow = resolve_flow(flow_estimator)
        if self._flow is None:
            flow_estimator = "none"
        elif not isinstance(flow_estimator, str):
            flow_estimator = "custom"
        if self.takes_argument("flow_estimator"):
            self.arguments["flow_estimator"] = flow_estimator
        # Compiled functions hold the one before.
        self.train_function = None
        self.discard_compiled()

    def default_losses(self) -> dict[str, Any]:
        """Squared error, edges, flow and what the discriminator says."""
        losses = {
            "intensity": keras.losses.MeanSquaredError(),
            "gradient": gradient_difference,
            "flow": keras.losses.MeanAbsoluteError(),
            "adversarial": least_squares,
        }
        return {name: losses[name] for name in self.default_loss_weights()}

    def default_loss_weights(self) -> dict[str, float]:
        """Weights of the terms that are not left out."""
        weights = dict(self._weights)
        if self._flow is None:
            weights["flow"] = 0.0
        return {name: weight for name, weight in weights.items() if weight}

    def loss_terms(
        self, clip: Any, target: Any, outputs: dict[str, Any]
    ) -> dict[str, tuple[Any, Any]]:
        """Frames, flows, and judgments of the discriminator."""
        prediction = outputs["prediction"]
        weights = self.default_loss_weights()
        terms = {
            "intensity": (target, prediction),
            "gradient": (target, prediction),
        }
        if self._flow is not None and "flow" in weights:
            before, last = clip[:, -2], clip[:, -1]
            terms["flow"] = (
                ops.stop_gradient(self._flow(before, last)),
                self._flow(before, (prediction + 1.0) / 2.0),
            )
        if self.discriminator is not None:
            judgment = self.discriminator(prediction)
            terms["adversarial"] = (ops.ones_like(judgment), judgment)
        return {name: terms[name] for name in weights}

    def default_optimizer(
        self, learning_rate: float | None = None, steps: int | None = None
    ) -> keras.optimizers.Optimizer:
        """Returns Adam at a rate of 2e-4, divided by ten after `drop_step`."""
        rate: Any = 2e-4 if learning_rate is None else learning_rate
        drop_step = self._drop_step or (steps and max(1, steps // 2))
        if drop_step:
            rate = keras.optimizers.schedules.PiecewiseConstantDecay(
                [drop_step], [rate, 0.1 * rate]
            )
        return keras.optimizers.Adam(rate, epsilon=1e-8)

    def default_discriminator_optimizer(
        self, learning_rate: float | None = None, steps: int | None = None
    ) -> keras.optimizers.Optimizer:
        """That of the generator at a tenth of its rate."""
        rate = 2e-4 if learning_rate is None else learning_rate
        return self.default_optimizer(0.1 * rate, steps)


def _unet(
    x: Any,
    width: int,
    places: tuple[str, ...],
    sspcab_options: dict[str, Any] | None,
) -> Any:
    def conv(x: Any, channels: int, name: str) -> Any:
        return padded_conv(x, channels, name, activation="relu")

    skips = []
    for stage in range(1, 5):
        if stage > 1:
            skips.append(x)
            x = layers.MaxPooling2D(name=f"encoder{stage}_pool", **LAST)(x)
        for index in (1, 2):
            channels = width * 2 ** (stage - 1)
            x = conv(x, channels, f"encoder{stage}_conv{index}")
    for stage in range(1, 4):
        channels = width * 2 ** (3 - stage)
        x = layers.Conv2DTranspose(
            channels,
            2,
            strides=2,
            activation="relu",
            name=f"decoder{stage}_up",
            **LAST,
        )(x)
        skip = layers.Concatenate(name=f"decoder{stage}_skip")
        x = skip([skips.pop(), x])
        x = conv(x, channels, f"decoder{stage}_conv1")
        if stage == 3 and "penultimate" in places:
            return sspcab_block(x, "penultimate", sspcab_options)
        x = conv(x, channels, f"decoder{stage}_conv2")
    return x
