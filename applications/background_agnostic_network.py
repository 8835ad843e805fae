"""The networks of the background-agnostic framework."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import layers, ops

from keras_sspcab.hosts.graph import LAST, padded_conv, sspcab_block
from keras_sspcab.layers import GradientReversal, auxiliary_losses_disabled

Batch = Mapping[str, Any]

#: Blocks of a decoder, in order; each may get the encoder's map of its size.
SKIPS = ("d1", "d2", "d3")


@dataclasses.dataclass(frozen=True)
class Network:
    """One of the three auto-encoders and what belongs to it.

    The encoder takes scaled crops to latent features and maps to skip to. The
    decoders make crops of these, and the segmentation logits of the object's
    mask. The classifier judges the error of the reconstruction and the latent
    features.
    """

    name: str
    scaling: keras.layers.Layer
    encoder: keras.Model
    decoder: keras.Model
    adversarial: keras.Model
    classifier: keras.Model
    segmentation: keras.Model | None = None

    def rebuild(self, crop: Any) -> tuple[Any, list[Any]]:
        """Returns the reconstruction, its absolute error and the latents."""
        scaled = self.scaling(crop)
        features = self.encoder(scaled)
        rebuilt = self.decoder(features)
        return rebuilt, [ops.absolute(scaled - rebuilt), features[0]]

    @property
    def rebuilding_parts(self) -> list[keras.Model]:
        """What rebuilds and segments."""
        parts = [self.encoder, self.decoder, self.segmentation]
        return [part for part in parts if part is not None]

    # === Losses, each `(batch,)` ===

    def rebuilding_terms(self, batch: Batch, error: Any) -> dict[str, Any]:
        """Errors of the reconstruction and of the segmentation."""
        crop = self.scaling(batch[self.name])
        features = self.encoder(crop)
        difference = self.decoder(features) - crop
        terms = {f"{self.name}_reconstruction": _per_object(error(difference))}
        if self.segmentation is not None:
            logits = self.segmentation(features)
            # Zero without masks, but with a gradient: optimizers warn of none.
            term = 0.0 * _per_object(logits)
            if "mask" in batch:
                mask = ops.cast(batch["mask"], logits.dtype)
                term = _per_object(
                    ops.binary_crossentropy(mask, logits, from_logits=True)
                )
            terms[f"{self.name}_segmentation"] = term
        return terms

    def adversarial_terms(
        self, batch: Batch, error: Any, strength: float
    ) -> dict[str, Any]:
        """Error of the adversarial reconstruction of pseudo-abnormal crops."""
        reverse = GradientReversal(strength)
        crop = self.scaling(batch[f"abnormal_{self.name}"])
        features = [reverse(part) for part in self.encoder(crop)]
        difference = self.adversarial(features) - crop
        return {f"{self.name}_adversarial": _per_object(error(difference))}

    def classification_terms(self, batch: Batch) -> dict[str, Any]:
        """Cross-entropies of the classifier; all before it is fixed."""

        def logits(crop: Any) -> Any:
            with auxiliary_losses_disabled():
                _, features = self.rebuild(crop)
            return self.classifier([ops.stop_gradient(x) for x in features])

        # The second logit is that of normal.
        normal = logits(batch[self.name])
        abnormal = logits(batch[f"abnormal_{self.name}"])
        term = 0.5 * (
            ops.softplus(normal[:, 0] - normal[:, 1])
            + ops.softplus(abnormal[:, 1] - abnormal[:, 0])
        )
        return {f"{self.name}_classification": term}


@dataclasses.dataclass(frozen=True)
class NetworkBuilder:
    """Builds the networks of a host; the attributes are its arguments."""

    shape: tuple[int, int, int]
    width: int
    places: Sequence[str]
    block: dict[str, Any]
    output_activation: str
    motion_activation: str
    motion_scale: float
    skips: Sequence[str]
    units: int
    segments: bool

    def build(self, name: str) -> Network:
        """Builds the auto-encoder of an input and what belongs to it."""
        height, width, channels = self.shape
        scale, activation = 1.0, self.output_activation
        is_motion = name != "appearance"
        if is_motion:
            channels = 2
            scale, activation = self.motion_scale, self.motion_activation
        coder = encoder((height, width, channels), self.width, name)

        def decoding(
            output: str, place: str, channels: int, activation: str
        ) -> keras.Model:
            block = self.block if place in self.places else None
            return decoder(
                coder, channels, self.skips, output, activation, block
            )

        segmentation = None
        if self.segments and not is_motion:
            # Its output is the logits.
            segmentation = decoding("segmentation", "segmentation", 1, "linear")
        return Network(
            name=name,
            scaling=layers.Rescaling(
                scale, dtype="float32", name=f"{name}_scaled"
            ),
            encoder=coder,
            decoder=decoding("reconstruction", "decoder", channels, activation),
            adversarial=decoding(
                "adversarial", "adversarial", channels, activation
            ),
            classifier=classifier(coder, self.width, self.units),
            segmentation=segmentation,
        )


def encoder(shape: Sequence[int], width: int, name: str) -> keras.Model:
    """Three convolutions with pooling, to latents and maps to skip to."""
    inputs = keras.Input(shape, name=f"{name}_crop")
    x, maps = inputs, []
    for index, channels in enumerate((width, width, width // 2), 1):
        x = _conv(x, channels, f"{name}_encoder_conv{index}")
        maps.append(x)
        x = _pool(x, f"{name}_encoder_pool{index}")
    return keras.Model(inputs, [x, *maps[::-1]], name=f"{name}_encoder")


def decoder(
    encoder: keras.Model,
    channels: int,
    skips: Sequence[str],
    output: str,
    activation: str,
    block: dict[str, Any] | None,
) -> keras.Model:
    """Three up-samplings with a convolution each, and one of the output.

    Blocks in `skips` get the encoder's map added behind their ReLU; an
    `SSPCABLayer` with the arguments `block` replaces the third convolution.
    """
    name = encoder.name.removesuffix("_encoder")
    inputs = [
        keras.Input(tensor.shape[1:], name=f"{name}_{output}_{part}")
        for tensor, part in zip(
            encoder.outputs, ("latent", *SKIPS), strict=True
        )
    ]
    x, *maps = inputs
    prefix = f"{name}_{output}_decoder"
    # As many as the encoder's map of this size has, so that it can be added.
    for part, skipped in zip(SKIPS, maps, strict=True):
        index = part[1:]
        x = layers.UpSampling2D(name=f"{prefix}_up{index}", **LAST)(x)
        if part == "d3" and block is not None:
            x = sspcab_block(x, "", {"name": f"{prefix}_sspcab", **block})
        else:
            x = _conv(x, skipped.shape[-1], f"{prefix}_conv{index}")
        if part in skips:
            x = layers.Add(name=f"{prefix}_skip{index}")([x, skipped])
    x = _conv(x, channels, f"{prefix}_conv4", None)
    # float32 under mixed precision too: the score is a small difference.
    x = layers.Activation(activation, dtype="float32", name=f"{prefix}_out")(x)
    return keras.Model(inputs, x, name=prefix)


def classifier(encoder: keras.Model, width: int, units: int) -> keras.Model:
    """Tells the errors of normal crops from those of abnormal ones.

    Takes the absolute difference of crop and reconstruction and the latent
    features, and gives two float32 logits, the second for normal.
    """
    name = encoder.name.removesuffix("_encoder")
    prefix = f"{name}_classifier"
    difference = keras.Input(encoder.input_shape[1:], name=f"{prefix}_error")
    latent = keras.Input(encoder.outputs[0].shape[1:], name=f"{prefix}_latent")
    x = difference
    half = width // 2
    for index, channels in enumerate((width, width, half, half, half), 1):
        x = _conv(x, channels, f"{prefix}_conv{index}")
        x = _pool(x, f"{prefix}_pool{index}")
        if index == 3:
            x = layers.Add(name=f"{prefix}_add")([x, latent])
    x = layers.Flatten(name=f"{prefix}_flatten", **LAST)(x)
    x = layers.Dense(units, activation="relu", name=f"{prefix}_dense")(x)
    logits = layers.Dense(2, dtype="float32", name=f"{prefix}_logits")(x)
    return keras.Model([difference, latent], logits, name=prefix)


def _conv(
    x: Any, channels: int, name: str, activation: str | None = "relu"
) -> Any:
    return padded_conv(x, channels, name, activation=activation)


def _pool(x: Any, name: str) -> Any:
    return layers.MaxPooling2D(name=name, **LAST)(x)


def _per_object(values: Any) -> Any:
    return ops.mean(values, axis=(1, 2, 3))
