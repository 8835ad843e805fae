"""The conditional variational auto-encoder of HF2-VAD, which predicts crops."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers, ops

from keras_sspcab.checks import standardize_int
from keras_sspcab.hosts.arguments import check_input_shape
from keras_sspcab.hosts.graph import LAST, pytorch_initializer, sspcab_block
from keras_sspcab.layers import DepthToSpace, SpaceToDepth, WeightNormConv2D

# Maps of an encoder: two of each of the four scales, the largest first.
MAPS = tuple(
    f"scale{scale}_{index}" for scale in range(1, 5) for index in (1, 2)
)

# Quarters of a latent map, which are predicted one after the other.
_GROUPS = 4

Block = Callable[..., Any]


def vunet(
    input_shape: Sequence[int] = (32, 32, 3),
    num_frames: int = 4,
    base_width: int = 64,
    dropout_rate: float = 0.1,
    sspcab_options: dict[str, Any] | None = None,
    alignment: str = "pytorch",
    name: str = "vunet",
) -> keras.Model:
    """Predicts the next crop of an object from the last ones and their flow.

    One encoder looks at frames and flow; from its maps the posterior gives
    latent maps at two scales, and the decoder takes them over skip connections.
    Another one looks at flow alone; the prior predicts the same latent maps
    from it, each in four quarters one after the other, and gives the decoder
    its features. Variances are 1 throughout: a latent map is its mean plus
    normal noise in training, and its mean otherwise. Where a block has options,
    it sits between the last residual block and the convolution of the output.

    Takes a dict of `frames` `(batch, height, width, num_frames * channels)` and
    `flows` `(batch, height, width, num_frames * 2)`, with sides that are
    multiples of 16, to a dict of float32 tensors: `prediction` in [0, 1], and
    `divergence` `(batch,)`, the Kullback-Leibler divergence of posterior and
    prior, summed over both scales.

    References:
    - [Liu et al., ICCV 2021](https://arxiv.org/abs/2108.06852) and its code
    - [Esser et al., CVPR 2018](https://arxiv.org/abs/1804.04694)

    Deviations: biases start at zero. A test of the reference draws its latent
    maps at random, so that two runs differ by 2.4e-3 in the prediction; here
    they are their means. Kernels start as by PyTorch's default: the Kaiming
    initializer that the reference states does not reach kernels with weight
    normalization, as they are computed again from length and direction before
    each use; with it the divergence would begin at 1e8.
    """
    height, width, channels = check_input_shape(
        input_shape, 16, needs_size="the prior knows the size of its maps"
    )
    num_frames = standardize_int(num_frames, "num_frames", 1)
    base_width = standardize_int(base_width, "base_width", 1)
    if not 0 <= float(dropout_rate) < 1:
        raise ValueError(
            "The `dropout_rate` argument must be at least 0 and less than 1. "
            f"Received: dropout_rate={dropout_rate!r}"
        )
    parts = _Parts(base_width, float(dropout_rate), alignment)
    size = height, width
    frames = keras.Input((*size, num_frames * channels), name="frames")
    flows = keras.Input((*size, num_frames * 2), name="flows")

    seen = layers.Concatenate(name="frames_and_flows")([frames, flows])
    maps_seen = parts.encoder(seen.shape[1:], "frame_encoder")(seen)
    maps_moving = parts.encoder(flows.shape[1:], "flow_encoder")(flows)
    posterior = _apply(parts.posterior(maps_seen), maps_seen)
    prior = _apply(parts.prior(maps_moving), {**maps_moving, **posterior})
    decoder = parts.decoder(
        prior["features"], maps_seen, channels, sspcab_options
    )
    prediction = _apply(decoder, {**maps_seen, **prior})
    terms = [
        0.5
        * ops.sum(
            ops.square(
                ops.cast(prior[mean], "float32")
                - ops.cast(posterior[mean], "float32")
            ),
            axis=(1, 2, 3),
        )
        for mean in ("mean4", "mean3")
    ]
    return keras.Model(
        {"frames": frames, "flows": flows},
        {"prediction": prediction, "divergence": terms[0] + terms[1]},
        name=name,
    )


@dataclasses.dataclass(frozen=True)
class _Parts:
    """Builds the five parts, each a model from a dict of maps."""

    width: int
    dropout_rate: float
    alignment: str

    def encoder(self, shape: Sequence[int], name: str) -> keras.Model:
        """Two residual blocks at each of four scales."""
        inputs = keras.Input(shape, name=f"{name}_input")
        x = _conv(self.width, f"{name}_stem", 1)(inputs)
        maps = {}
        for scale in range(1, 5):
            if scale > 1:
                down = f"{name}_down{scale}"
                x = _conv(
                    2 * self.width, down, strides=2, alignment=self.alignment
                )(x)
            for index in (1, 2):
                part = f"scale{scale}_{index}"
                x = self._residual(x.shape[-1], f"{name}_{part}")(x)
                maps[part] = x
        return keras.Model(inputs, maps, name=name)

    def posterior(self, maps: dict[str, Any]) -> keras.Model:
        """The latent maps of what is seen, and their means."""
        name, channels = "posterior", 2 * self.width
        inputs = _inputs(maps, MAPS[5:])
        outputs: dict[str, Any] = {}
        x = _conv(channels, f"{name}_stem", 1)(inputs["scale4_2"])
        for scale in (4, 3):
            block = self._residual(channels, f"{name}_mean{scale}", True)
            x = outputs[f"mean{scale}"] = block(x, inputs[f"scale{scale}_2"])
            noise = layers.GaussianNoise(1.0, name=f"{name}_noise{scale}")
            latent = outputs[f"latent{scale}"] = noise(x)
            if scale == 4:
                merged = self._merge(inputs["scale4_1"], latent, f"{name}4")
                x = self._residual(channels, f"{name}_block4", True)(x, merged)
                x = _up(x, channels, f"{name}_up")
        return keras.Model(inputs, outputs, name=name)

    def prior(self, maps: dict[str, Any]) -> keras.Model:
        """The means that flow lets expect, and features for the decoder."""
        name, channels = "prior", 2 * self.width
        inputs = _inputs(maps, MAPS[4:])
        for scale in (4, 3):
            latent = f"latent{scale}"
            shape = inputs[f"scale{scale}_1"].shape[1:]
            inputs[latent] = keras.Input(shape, name=latent)
        predict = self._autoregression(channels, f"{name}_groups")
        outputs: dict[str, Any] = {}
        x = _conv(channels, f"{name}_stem", 1)(inputs["scale4_2"])
        for scale in (4, 3):
            part, latent = f"{name}{scale}", inputs[f"latent{scale}"]
            block = self._residual(channels, f"{part}_first", True)
            x = block(x, inputs[f"scale{scale}_2"])
            outputs[f"mean{scale}"] = predict(x, latent)
            merged = self._merge(inputs[f"scale{scale}_1"], latent, part)
            x = self._residual(channels, f"{part}_last", True)(x, merged)
            if scale == 4:
                x = _up(x, channels, f"{name}_up")
        outputs["features"] = x
        return keras.Model(inputs, outputs, name=name)

    def decoder(
        self,
        features: Any,
        maps: dict[str, Any],
        channels: int,
        sspcab_options: dict[str, Any] | None,
    ) -> keras.Model:
        """From the features to the crop, with the maps of what is seen."""
        name = "decoder"
        inputs = _inputs(maps, MAPS[:4])
        inputs["features"] = keras.Input(features.shape[1:], name="features")
        x = inputs["features"]
        for scale, width in ((2, 2 * self.width), (1, self.width)):
            x = _up(x, width, f"{name}_up{scale}")
            for index in (2, 1):
                part = f"scale{scale}_{index}"
                block = self._residual(width, f"{name}_{part}", True)
                x = block(x, inputs[part])
        if sspcab_options is not None:
            x = sspcab_block(x, "penultimate", sspcab_options)
        x = _conv(channels, f"{name}_output", 1)(x)
        # float32 under mixed precision too: the score is a small difference.
        x = layers.Activation("sigmoid", dtype="float32", name="prediction")(x)
        return keras.Model(inputs, x, name=name)

    def _residual(
        self, channels: int, name: str, with_skip: bool = False
    ) -> Block:
        """A residual block; called twice, it shares its weights."""
        conv = _conv(channels, f"{name}_conv")
        activation = layers.ELU(name=f"{name}_elu")
        dropout = layers.Dropout(self.dropout_rate, name=f"{name}_dropout")
        add = layers.Add(name=f"{name}_add")
        if not with_skip:
            return lambda x: add([x, conv(dropout(activation(x)))])
        skip_activation = layers.ELU(name=f"{name}_skip_elu")
        skip_conv = _conv(channels, f"{name}_skip_conv", 1)
        concatenate = layers.Concatenate(name=f"{name}_skip")

        def block(x: Any, skip: Any) -> Any:
            y = concatenate([x, skip_conv(skip_activation(skip))])
            return add([x, conv(dropout(activation(y)))])

        return block

    def _merge(self, features: Any, latent: Any, name: str) -> Any:
        x = layers.Concatenate(name=f"{name}_merge")([features, latent])
        return _conv(latent.shape[-1], f"{name}_merge_conv", 1)(x)

    def _autoregression(self, channels: int, name: str) -> Block:
        """Predicts a latent map quarter by quarter; both scales share it."""
        first = self._residual(channels, f"{name}_first")
        gather = SpaceToDepth(name=f"{name}_gather", **LAST)
        start = _conv(channels, f"{name}_start", 1)
        blocks = [
            self._residual(channels, f"{name}{index}", True)
            for index in range(1, _GROUPS)
        ]
        spread = DepthToSpace(name=f"{name}_spread", **LAST)

        def predict(x: Any, latent: Any) -> Any:
            means = [start(gather(first(x)))]
            known = ops.split(gather(latent), _GROUPS, axis=-1)
            # Each quarter may look at the true ones before it.
            for block, quarter in zip(blocks, known, strict=False):
                means.append(block(means[-1], quarter))
            return spread(ops.concatenate(means, axis=-1))

        return predict


def _inputs(maps: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {
        name: keras.Input(maps[name].shape[1:], name=name) for name in names
    }


def _apply(part: keras.Model, maps: dict[str, Any]) -> Any:
    """Gives a part the maps that it has inputs for."""
    return part({tensor.name: maps[tensor.name] for tensor in part.inputs})


def _conv(
    channels: int, name: str, kernel_size: int = 3, **arguments: Any
) -> WeightNormConv2D:
    return WeightNormConv2D(
        channels,
        kernel_size,
        kernel_initializer=pytorch_initializer(),
        name=name,
        **LAST,
        **arguments,
    )


def _up(x: Any, channels: int, name: str) -> Any:
    x = _conv(4 * channels, f"{name}_conv")(x)
    return DepthToSpace(name=f"{name}_spread", **LAST)(x)
