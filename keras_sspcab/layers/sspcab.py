"""The self-supervised predictive convolutional attentive block."""

from typing import Any

import keras

from keras_sspcab.checks import standardize_int
from keras_sspcab.layers.attention import ChannelAttention, SpatialAttention
from keras_sspcab.layers.base import Shape
from keras_sspcab.layers.predictive_block import PredictiveBlock


@keras.saving.register_keras_serializable(package="keras_sspcab")
class SSPCABLayer(PredictiveBlock):
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
            term. The paper uses 0.1, for HF2-VAD 0.01. Defaults to `0.1`. As an
            attribute it can be changed; compile the model again then.
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

    config_names = ("reduction_ratio",)
    attentions = ("channel", "spatial", "channel_spatial")

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
        super().__init__(
            kernel_size=kernel_size,
            dilation_rate=dilation_rate,
            mask_size=mask_size,
            loss=loss,
            loss_weight=loss_weight,
            attention=attention,
            padding_mode=padding_mode,
            activation=activation,
            use_bias=use_bias,
            stop_gradient=stop_gradient,
            data_format=data_format,
            per_corner_activation=per_corner_activation,
            initializer=initializer,
            **kwargs,
        )
        self.reduction_ratio = standardize_int(
            reduction_ratio, "reduction_ratio", 1
        )

    def _build_gates(self, input_shape: Shape) -> None:
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

    @property
    def _gates(self) -> tuple[keras.layers.Layer | None, ...]:
        return self.channel_attention, self.spatial_attention
