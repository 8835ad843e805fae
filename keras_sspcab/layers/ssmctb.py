"""The self-supervised masked convolutional transformer block."""

from typing import Any

import keras

from keras_sspcab.checks import standardize_number
from keras_sspcab.layers.base import Shape
from keras_sspcab.layers.channel_transformer import (
    ChannelTransformer,
    TransformerSizes,
)
from keras_sspcab.layers.predictive_block import PredictiveBlock

_VARIANTS = {"transformer": "paper", "authors": "authors"}


@keras.saving.register_keras_serializable(package="keras_sspcab")
class SSMCTBLayer(TransformerSizes, PredictiveBlock):
    """Predicts each position of a map or volume from its surroundings.

    The successor of `SSPCABLayer` by the same authors, with the same place in a
    network and the same masked convolution. Three things are different: a
    transformer whose tokens are the channels computes their gates; volumes can
    be its input; and the Huber loss compares its input and output. The loss is
    added and reported like that of an `SSPCABLayer`, in the same metric
    `sspcab_loss`, which sums up all blocks of a model.

    The layer follows its first input: with three spatial axes, its masked
    convolution has eight corners instead of four.

    Reference:
    - [Madan, Ristea et al., "Self-Supervised Masked Convolutional Transformer
      Block for Anomaly Detection", TPAMI
      2024](https://arxiv.org/abs/2209.12148)

    Deviations and open points:
    - The authors' PyTorch code differs from their paper: a single attention of
      five heads, which are projected instead of summed, without residuals,
      normalization or dense layers; and the mean squared error.
      `SSMCTBLayer(attention="authors")` is that code;
      `keras_sspcab.from_torch_state_dict` loads its weights.
    - What the paper leaves open about the transformer, and how it is settled
      here, is said in `ChannelTransformer`. There is no dropout.
    - Positions are learned for each channel and start at random, so the gates
      of an untrained layer are not 0.5.

    Args:
        kernel_size: Integer, the paper's `k'`: side of each of the corners that
            carry weights. Defaults to `1`.
        dilation_rate: Integer of at least 0, the paper's `d`: distance between
            a corner and the mask. Defaults to `1`.
        token_dim: Integer, size of a token. Defaults to `64`.
        num_heads: Integer, heads of each attention. None means as published: 4
            in the paper, 5 in the authors' code. Defaults to None.
        num_blocks: Integer, number of transformer blocks. Defaults to `2`.
        mlp_dim: Integer, units of the dense layer within a block. None means
            `2 * token_dim`. Defaults to None.
        pool_size: Integer, to how many values a channel is averaged along each
            axis before it becomes a token. Defaults to `1`.
        mask_size: Integer, side of the masked center. Defaults to `1`.
        loss: `"huber"`, `"mse"`, `"mae"`, a `keras.losses.Loss`, or None for no
            loss term. `"auto"`, the default, is `"huber"` as in the paper, and
            `"mse"` with `attention="authors"`.
        delta: Float above 0, the error from which on the Huber loss is linear.
            Defaults to `1.0`.
        loss_weight: Float of at least 0, the paper's lambda. 0 adds no loss
            term. The paper uses 0.1, for NSA and HF2-VAD 0.001. Defaults to
            `0.1`.
        attention: `"transformer"` (the paper), `"authors"` (their PyTorch
            code), or None. Defaults to `"transformer"`.
        **kwargs: `padding_mode`, `activation`, `use_bias`, `stop_gradient`,
            `per_corner_activation`, `initializer`, `data_format`, the arguments
            of weights and those of the base layer, as in `SSPCABLayer`.

    Input and output shape:
        `(batch, height, width, channels)` or `(batch, height, width, depth,
        channels)`; with `data_format="channels_first"` the channels come
        second. Only the channels must be known. The three axes of a volume are
        alike: one of them can be time.

    Raises:
        ValueError: If an argument is out of its range, or the number of
            channels is unknown.

    Example:
    >>> model = keras.Sequential([
    ...     keras.Input((16, 16, 3)),
    ...     keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
    ...     SSMCTBLayer(),  # was Conv2D(8, 3, ...)
    ...     keras.layers.Conv2D(3, 3, padding="same"),
    ... ])
    >>> model.compile("adam", "mse")
    >>> images = np.random.rand(4, 16, 16, 3)
    >>> history = model.fit(images, images, verbose=0)
    >>> sorted(history.history)
    ['loss', 'sspcab_loss']
    >>> tuple(SSMCTBLayer()(np.ones((1, 8, 8, 4, 2))).shape)
    (1, 8, 8, 4, 2)
    """

    config_names = ("delta",)
    attentions = tuple(_VARIANTS)
    rank = 0

    def __init__(
        self,
        kernel_size: int = 1,
        dilation_rate: int = 1,
        token_dim: int = 64,
        num_heads: int | None = None,
        num_blocks: int = 2,
        mlp_dim: int | None = None,
        pool_size: int = 1,
        mask_size: int = 1,
        loss: Any = "auto",
        delta: float = 1.0,
        loss_weight: float = 0.1,
        attention: str | None = "transformer",
        **kwargs: Any,
    ) -> None:
        delta = standardize_number(delta, "delta", excluded=0)
        as_authors = attention == "authors"
        if isinstance(loss, str) and loss.lower() == "auto":
            loss = "mse" if as_authors else "huber"
        if num_heads is None:
            num_heads = 5 if as_authors else 4
        super().__init__(
            token_dim,
            num_heads,
            num_blocks,
            mlp_dim,
            pool_size,
            kernel_size=kernel_size,
            dilation_rate=dilation_rate,
            mask_size=mask_size,
            loss=loss,
            delta=delta,
            loss_weight=loss_weight,
            attention=attention,
            **kwargs,
        )
        self.delta = delta

    def _build_gates(self, input_shape: Shape) -> None:
        self.channel_attention = None
        if self.attention is not None:
            self.channel_attention = ChannelTransformer(
                **self.transformer_sizes(),
                variant=_VARIANTS[self.attention],
                initializer=self.initializer,
                name="channel_attention",
                **self._child_arguments(),
            )
            self.channel_attention.build(input_shape)

    @property
    def _gates(self) -> tuple[keras.layers.Layer | None, ...]:
        return (self.channel_attention,)
