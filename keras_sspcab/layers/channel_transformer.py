"""A gate of channels, computed by a transformer whose tokens they are."""

from typing import Any, ClassVar

import keras
from keras import ops

from keras_sspcab.checks import standardize_choice, standardize_int
from keras_sspcab.layers.attention import DenseLayers
from keras_sspcab.layers.base import (
    Shape,
    WeightedLayer,
    at_least_float32,
    multiply_last_axis,
)

VARIANTS = ("paper", "authors")

# As in the authors' TensorFlow file; the paper does not say.
_NORM_EPSILON = 1e-6


class SelfAttention(DenseLayers):
    """Attention between the tokens of a sample, `(batch, tokens, size)`.

    Heads as large as the tokens are either summed, or put side by side and
    projected. The projections to queries, keys and values have no biases.
    """

    rank = 1

    def __init__(self, num_heads: int, sums_heads: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.sums_heads = sums_heads

    def build(self, input_shape: Shape) -> None:
        (self.size,) = self.fix_sizes(input_shape, -1)
        width = self.num_heads * self.size
        self.qkv = self._dense("qkv", self.size, 3 * width, use_bias=False)
        self.output_projection = (
            None
            if self.sums_heads
            else self._dense("output_projection", width, self.size)
        )

    def call(self, tokens: Any) -> Any:
        count, heads, size = tokens.shape[1], self.num_heads, self.size
        queries, keys, values = (
            ops.transpose(ops.reshape(x, (-1, count, heads, size)), order)
            for x, order in zip(
                ops.split(self.qkv(tokens), 3, axis=-1),
                ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)),
                strict=True,
            )
        )
        # float16 would overflow in the products, and round the softmax.
        logits = ops.matmul(
            at_least_float32(queries) / size**0.5, at_least_float32(keys)
        )
        weights = ops.cast(ops.softmax(logits), self.compute_dtype)
        outputs = ops.matmul(weights, values)
        if self.output_projection is None:
            return ops.sum(outputs, axis=1)
        outputs = ops.transpose(outputs, (0, 2, 1, 3))
        outputs = ops.reshape(outputs, (-1, count, heads * size))
        return self.output_projection(outputs)


class TransformerBlock(DenseLayers):
    """Attention between tokens, then two dense layers, both residual."""

    rank = 1

    def __init__(self, num_heads: int, mlp_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim

    def build(self, input_shape: Shape) -> None:
        (size,) = self.fix_sizes(input_shape, -1)
        self.attention_norm = self._norm("attention_norm", input_shape)
        self.attention = SelfAttention(
            self.num_heads,
            sums_heads=True,
            initializer=self.initializer,
            name="attention",
            **self._child_arguments(),
        )
        self.attention.build(input_shape)
        self.mlp_norm = self._norm("mlp_norm", input_shape)
        self.expand = self._dense(
            "expand", size, self.mlp_dim, activation="relu"
        )
        self.reduce = self._dense("reduce", self.mlp_dim, size)

    def _norm(self, name: str, shape: Shape) -> keras.layers.Layer:
        norm = keras.layers.LayerNormalization(
            epsilon=_NORM_EPSILON, name=name, dtype=self.dtype_policy
        )
        norm.build(shape)
        return norm

    def call(self, tokens: Any) -> Any:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.reduce(self.expand(self.mlp_norm(tokens)))


class TransformerSizes(WeightedLayer):
    """The sizes of a transformer as arguments, described in the layer."""

    config_names: ClassVar[tuple[str, ...]] = (
        "token_dim",
        "num_heads",
        "num_blocks",
        "mlp_dim",
        "pool_size",
    )

    def __init__(
        self,
        token_dim: int,
        num_heads: int,
        num_blocks: int,
        mlp_dim: int | None,
        pool_size: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.token_dim = standardize_int(token_dim, "token_dim", 1)
        self.num_heads = standardize_int(num_heads, "num_heads", 1)
        self.num_blocks = standardize_int(num_blocks, "num_blocks", 1)
        if mlp_dim is None:
            mlp_dim = 2 * self.token_dim
        self.mlp_dim = standardize_int(mlp_dim, "mlp_dim", 1)
        self.pool_size = standardize_int(pool_size, "pool_size", 1)

    def transformer_sizes(self) -> dict[str, int]:
        """Returns the sizes as arguments of another layer."""
        names = TransformerSizes.config_names
        return {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable(package="keras_sspcab")
class ChannelTransformer(TransformerSizes, DenseLayers):
    """Scales each channel by a gate that a transformer computes.

    Each channel is a token: its map, averaged to a few values, is projected to
    `token_dim` numbers, and a learned vector for the position is added. After
    the transformer the mean of a token, through a sigmoid, multiplies the
    channel.

    References:
    - [Madan, Ristea et al., "Self-Supervised Masked Convolutional Transformer
      Block for Anomaly Detection", TPAMI
      2024](https://arxiv.org/abs/2209.12148), section 3.
    - The authors' PyTorch code, for `variant="authors"`.

    The paper gives neither the width nor the activation of the dense layers,
    nor the size of queries and keys. Here these are `2 * token_dim`, a ReLU,
    and `token_dim`, which is that of the values since heads are summed.

    Args:
        token_dim: Integer, size of a token. Defaults to `64`.
        num_heads: Integer, heads of each attention; the authors' code has 5.
            Defaults to `4`.
        num_blocks: Integer, number of transformer blocks. Defaults to `2`.
        mlp_dim: Integer, units of the dense layer within a block. None means
            `2 * token_dim`. Defaults to None.
        pool_size: Integer, to how many values a map is averaged along each
            axis; 1 is the global mean. Defaults to `1`.
        variant: `"paper"`, with residual blocks of attention and two dense
            layers, each behind a layer normalization; or `"authors"`, a single
            attention with nothing around it, whose heads are not summed but
            projected. `num_blocks` and `mlp_dim` then mean nothing. Defaults to
            `"paper"`.
        initializer: `"keras"` (the default), or `"authors"` to draw kernels and
            biases as PyTorch does. Positions are normal with a deviation of 1
            in both.
        **kwargs: `data_format`, `use_bias`, initializers, regularizers and
            constraints as in `keras.layers.Conv2D`, for all dense layers.

    Attributes:
        position: Variable of shape `(channels, token_dim)`.

    Input and output shape:
        4D tensor `(batch, height, width, channels)` or 5D tensor `(batch,
        height, width, depth, channels)`, or channels first. Only the channels
        must be known.

    Example:
    >>> layer = ChannelTransformer(num_heads=5, variant="authors")
    >>> tuple(layer(np.ones((2, 8, 8, 32))).shape)
    (2, 8, 8, 32)
    >>> layer.count_params()
    84160
    """

    config_names = ("variant",)
    rank = 0

    def __init__(
        self,
        token_dim: int = 64,
        num_heads: int = 4,
        num_blocks: int = 2,
        mlp_dim: int | None = None,
        pool_size: int = 1,
        variant: str = "paper",
        initializer: str = "keras",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            token_dim,
            num_heads,
            num_blocks,
            mlp_dim,
            pool_size,
            initializer=initializer,
            **kwargs,
        )
        self.variant = standardize_choice(variant, VARIANTS, "variant")

    def build(self, input_shape: Shape) -> None:
        channels = self._fix_channels(input_shape)
        num_values = self.pool_size**self.rank
        shared = {"initializer": self.initializer, **self._child_arguments()}
        with self.building_parts():
            self.projection = self._dense(
                "projection", num_values, self.token_dim
            )
            self.position = self.add_weight(
                name="position",
                shape=(channels, self.token_dim),
                initializer=keras.initializers.RandomNormal(stddev=1.0),
            )
            self.blocks = (
                [
                    SelfAttention(
                        self.num_heads, False, name="attention", **shared
                    )
                ]
                if self.variant == "authors"
                else [
                    TransformerBlock(
                        self.num_heads,
                        self.mlp_dim,
                        name=f"block_{index}",
                        **shared,
                    )
                    for index in range(self.num_blocks)
                ]
            )
            for block in self.blocks:
                block.build((None, channels, self.token_dim))

    def call(self, inputs: Any) -> Any:
        # float16 overflows in the sum over large maps.
        values = self._pool(at_least_float32(inputs))
        tokens = self.projection(ops.cast(values, self.compute_dtype))
        tokens = tokens + ops.cast(self.position, self.compute_dtype)
        for block in self.blocks:
            tokens = block(tokens)
        gate = ops.sigmoid(ops.mean(at_least_float32(tokens), axis=-1))
        gate = ops.expand_dims(gate, self._spatial_axes)
        return ops.multiply(inputs, ops.cast(gate, self.compute_dtype))

    def _pool(self, maps: Any) -> Any:
        """Averages maps to `(batch, channels, values)`."""
        if self.pool_size == 1:
            means = ops.mean(maps, axis=self._spatial_axes)
            return ops.expand_dims(means, -1)
        maps = ops.moveaxis(maps, self._channel_axis, 1)
        for _ in range(self.rank):
            # Each time the last axis, which then becomes the first of them.
            weights = self._pooling_weights(ops.shape(maps)[-1], maps.dtype)
            maps = ops.moveaxis(multiply_last_axis(maps, weights), -1, 2)
        num_values = self.pool_size**self.rank
        return ops.reshape(maps, (-1, maps.shape[1], num_values))

    def _pooling_weights(self, size: Any, dtype: Any) -> Any:
        """Returns `(size, pool_size)`: the shares of samples in the means.

        Means overlap where the size is no multiple, as in PyTorch's adaptive
        pooling.
        """
        pools = ops.arange(self.pool_size, dtype="int32")
        first = ops.floor_divide(pools * size, self.pool_size)
        last = ops.floor_divide((pools + 1) * size - 1, self.pool_size)
        samples = ops.expand_dims(ops.arange(size, dtype="int32"), -1)
        is_in = ops.logical_and(samples >= first, samples <= last)
        return ops.cast(is_in, dtype) / ops.cast(last - first + 1, dtype)
