"""The self-supervised predictive convolutional attentive block."""

from typing import Any

import keras
from keras import ops

from keras_sspcab.checks import (
    standardize_choice,
    standardize_int,
    standardize_number,
)
from keras_sspcab.layers.attention import ChannelAttention, SpatialAttention
from keras_sspcab.layers.auxiliary_loss import (
    BlockLossReport,
    auxiliary_loss_scale,
    auxiliary_losses_enabled,
    resolve_loss,
    serialize_loss,
)
from keras_sspcab.layers.base import (
    INITIALIZERS,
    EffectLayer,
    Shape,
    WeightedLayer,
    at_least_float32,
    pytorch_initializers,
)
from keras_sspcab.layers.corner_conv import PADDING_MODES
from keras_sspcab.layers.masked_conv import MaskedConv2D

ATTENTIONS = ("channel", "spatial", "channel_spatial")


@keras.saving.register_keras_serializable(package="keras_sspcab")
class SSPCABLayer(EffectLayer, WeightedLayer):
    """Predicts each position of a feature map from its dilated surroundings.

    A masked convolution with ReLU, then channel attention. The block learns to
    predict what it cannot see, the center of its own receptive field; how far
    it is off (`loss` between its input and its output, times `loss_weight`) is
    added to the losses of the model that holds it. Where only normal examples
    are seen in training, what is not predictable from its surroundings is
    suspicious.

    Put it in place of the penultimate convolution of an anomaly detector: that
    convolution must have stride 1 and as many output as input channels. The
    output is never negative (with the default activation), so the input should
    not be either: place the block behind a ReLU. `replace_penultimate_conv`
    does this for existing models.

    The term is added once in each call, in the precision of
    `keras.config.floatx()` whatever the dtype policy, and counts in `fit` and
    `evaluate`. In both, a metric named `sspcab_loss` reports it, summed over
    the blocks in a forward pass. With `keras.layers.TimeDistributed` each time
    step is a call and adds a term.

    Reference:
    - [Ristea et al., "Self-Supervised Predictive Convolutional Attentive
      Block for Anomaly Detection", CVPR 2022](https://arxiv.org/abs/2111.09099)

    Deviations and open points:
    - The paper does not mention biases; they follow the authors' PyTorch code
      (one vector a corner, which add up, and one for each dense layer).
    - `attention="spatial"` is assumed to be CBAM's, `mask_size > 1` is the
      natural generalization; the paper gives no formulas for either.
    - Attention sees means over the whole map, the masked position included:
      only the masked convolution is strictly blind to its center.

    Args:
        kernel_size: Integer, the paper's `k'`: side of each of the four
            corners that carry weights. Defaults to `1`.
        dilation_rate: Integer of at least 0, the paper's `d`: distance between
            a corner and the mask. Defaults to `1`.
        reduction_ratio: Integer, the paper's `r`: the bottleneck of the channel
            attention has `max(1, channels // r)` units. Defaults to `8`.
        mask_size: Integer, side of the masked center. Defaults to `1`.
        loss: `"mse"` (the paper), `"mae"`, `"huber"` (threshold 1), a
            `keras.losses.Loss`, or None for no loss term.
        loss_weight: Float of at least 0, the paper's lambda. 0 adds no loss
            term. The paper uses 0.1, for HF2-VAD 0.01. Defaults to `0.1`.
        attention: `"channel"` (the paper), `"spatial"`, `"channel_spatial"`
            (in this order), or None.
        padding_mode: `"zeros"` (the paper) or `"reflect"` (the authors'
            TensorFlow file). Defaults to `"zeros"`.
        activation: Activation behind the masked convolution. Defaults to
            `"relu"`.
        use_bias: Whether the convolution and the attention have biases.
            Defaults to `True`.
        stop_gradient: Whether the loss leaves the block's input alone. The
            authors let the gradient flow on into the layers before the block,
            which may lower the loss by shrinking their output. Defaults to
            `False`.
        initializer: `"keras"` (the default) draws weights as the arguments
            `kernel_initializer` and `bias_initializer` say; `"authors"` as
            their PyTorch code: kernels and biases uniform, within one over the
            root of the inputs of a corner or of a dense layer. Another
            `kernel_initializer` then is for the masked convolution alone.
        per_corner_activation: Whether bias and activation are applied to each
            corner before the sum. With `padding_mode="reflect"` this is the
            authors' TensorFlow file. Defaults to `False`.
        **kwargs: `data_format`, `kernel_initializer`, `bias_initializer`, their
            regularizers and constraints, for all kernels and biases of the
            block, and base layer keyword arguments (`name`, `dtype`, ...), as
            in `keras.layers.Conv2D`. Each regularizer adds an entry of its own
            to the losses.

    Input and output shape:
        `(batch, height, width, channels)`, or `(batch, channels, height,
        width)` with `data_format="channels_first"`. Only the channels must be
        known.

    Raises:
        ValueError: If an argument is out of its range, or the number of
            channels is unknown.

    Example:
    >>> model = keras.Sequential([
    ...     keras.Input((16, 16, 3)),
    ...     keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
    ...     SSPCABLayer(),  # was Conv2D(8, 3, ...)
    ...     keras.layers.Conv2D(3, 3, padding="same"),
    ... ])
    >>> model.compile("adam", "mse")
    >>> images = np.random.rand(4, 16, 16, 3)
    >>> history = model.fit(images, images, verbose=0)
    >>> sorted(history.history)
    ['loss', 'sspcab_loss']
    """

    config_names = (
        "kernel_size",
        "dilation_rate",
        "reduction_ratio",
        "mask_size",
        "loss_weight",
        "attention",
        "padding_mode",
        "activation",
        "stop_gradient",
        "initializer",
        "per_corner_activation",
    )

    def __init__(
        self,
        kernel_size: int = 1,
        dilation_rate: int = 1,
        reduction_ratio: int = 8,
        mask_size: int = 1,
        loss: Any = "mse",
        loss_weight: float = 0.1,
        attention: str | None = "channel",
        padding_mode: str = "zeros",
        activation: Any = "relu",
        use_bias: bool = True,
        stop_gradient: bool = False,
        data_format: str | None = None,
        per_corner_activation: bool = False,
        initializer: str = "keras",
        **kwargs: Any,
    ) -> None:
        super().__init__(data_format=data_format, use_bias=use_bias, **kwargs)
        self.kernel_size = standardize_int(kernel_size, "kernel_size", 1)
        self.dilation_rate = standardize_int(dilation_rate, "dilation_rate", 0)
        self.reduction_ratio = standardize_int(
            reduction_ratio, "reduction_ratio", 1
        )
        self.mask_size = standardize_int(mask_size, "mask_size", 1)
        self._loss_function = resolve_loss(loss)
        self.loss = loss
        self.loss_weight = standardize_number(loss_weight, "loss_weight")
        if attention is not None:
            attention = standardize_choice(attention, ATTENTIONS, "attention")
        self.attention = attention
        self.padding_mode = standardize_choice(
            padding_mode, PADDING_MODES, "padding_mode"
        )
        self.activation = keras.activations.get(activation)
        self.stop_gradient = bool(stop_gradient)
        self.initializer = standardize_choice(
            initializer, INITIALIZERS, "initializer"
        )
        self.per_corner_activation = bool(per_corner_activation)
        self._loss_report = (
            BlockLossReport(f"{self.name}_loss") if self.adds_loss else None
        )

    @property
    def adds_loss(self) -> bool:
        """Whether the layer adds a loss term at all."""
        return self._loss_function is not None and self.loss_weight > 0

    @property
    def metrics(self) -> list[Any]:
        """The metrics of the layer: `sspcab_loss` where it adds a loss."""
        report = self._loss_report
        return super().metrics + ([] if report is None else [report.total])

    @property
    def own_loss_metric(self) -> keras.metrics.Metric | None:
        """The term of this block alone, `NAME_loss`; None if it adds none."""
        return None if self._loss_report is None else self._loss_report.own

    def build(self, input_shape: Shape) -> None:
        with self.building_parts():
            self._build_parts(input_shape, self._fix_channels(input_shape))

    def _build_parts(self, input_shape: Shape, channels: int) -> None:
        self.masked_conv = MaskedConv2D(
            channels,
            kernel_size=self.kernel_size,
            dilation_rate=self.dilation_rate,
            mask_size=self.mask_size,
            padding_mode=self.padding_mode,
            activation=self.activation,
            per_corner_activation=self.per_corner_activation,
            name="masked_conv",
            **self._conv_arguments(channels),
        )
        self.masked_conv.build(input_shape)
        self.channel_attention = self.spatial_attention = None
        if self.attention in ("channel", "channel_spatial"):
            self.channel_attention = ChannelAttention(
                self.reduction_ratio,
                self.initializer,
                name="channel_attention",
                **self._child_arguments(),
            )
            self.channel_attention.build(input_shape)
        if self.attention in ("spatial", "channel_spatial"):
            self.spatial_attention = SpatialAttention(
                name="spatial_attention", **self._child_arguments()
            )
            self.spatial_attention.build(input_shape)

    def compute(self, inputs: Any) -> Any:
        """Returns the block's prediction of its input; adds no loss."""
        outputs = self.masked_conv(inputs)
        for attention in (self.channel_attention, self.spatial_attention):
            if attention is not None:
                outputs = attention(outputs)
        return outputs

    def conclude(self, inputs: Any, outputs: Any, training: bool) -> None:
        """Adds the loss of what was predicted."""
        loss, report = self._loss_function, self._loss_report
        if loss and report and auxiliary_losses_enabled():
            self.check_single_pass()
            # Both operands: a float16 difference would overflow when squared.
            target = at_least_float32(inputs)
            if self.stop_gradient:
                target = ops.stop_gradient(target)
            term = loss(target, at_least_float32(outputs))
            # A replica without a sample, whose mean is NaN, has no loss.
            num_samples = ops.shape(inputs)[0]
            term = ops.where(ops.greater(num_samples, 0), term, 0.0)
            # Keras adds it to losses of this dtype.
            term = ops.cast(term, keras.config.floatx())
            term = (self.loss_weight * auxiliary_loss_scale()) * term
            self.add_loss(term)
            report.note(term, num_samples)

    def _conv_arguments(self, channels: int) -> dict[str, Any]:
        arguments = self._child_arguments()
        if self.initializer == "authors":
            # Each corner is a convolution of its own there.
            drawn = pytorch_initializers(channels * self.kernel_size**2)
            default = keras.initializers.GlorotUniform
            if not isinstance(self.kernel_initializer, default):
                del drawn["kernel_initializer"]
            arguments |= drawn
        return arguments

    def _child_arguments(self) -> dict[str, Any]:
        arguments = super()._child_arguments()
        return {"data_format": self.data_format, **arguments}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "loss": serialize_loss(self.loss)}
