"""The three stages in which the background-agnostic framework is trained."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_sspcab.hosts.stages import StageModel, Untracked
from keras_sspcab.layers import GradientReversal, auxiliary_losses_disabled

#: Errors of a reconstruction, by name.
ERRORS = {"mse": ops.square, "mae": ops.absolute}


@dataclasses.dataclass(frozen=True)
class Network:
    """One of the three auto-encoders and what belongs to it.

    Attributes:
        name: Name of its input, such as `"appearance"`.
        scaling: Layer that the input goes through first.
        encoder: From scaled crops to latent features and maps to skip to.
        decoder: From these to the reconstruction.
        adversarial: The same, for pseudo-abnormal crops.
        classifier: From the error of the reconstruction and the latent features
            to the logits.
        segmentation: From what the encoder gives to logits of the object's
            mask, or None.
    """

    name: str
    scaling: keras.layers.Layer
    encoder: keras.Model
    decoder: keras.Model
    adversarial: keras.Model
    classifier: keras.Model
    segmentation: keras.Model | None = None


class NetworkStage(StageModel):
    """A stage whose losses are those of the three networks.

    Args:
        networks: The three networks.
        **kwargs: As in `StageModel`.
    """

    # Of a predecessor of the framework.
    decay = (0.5, 0.1)

    def __init__(self, networks: Sequence[Network], **kwargs: Any) -> None:
        self._of_networks = Untracked(tuple(networks))
        trained = [
            part for network in networks for part in self.trained_of(network)
        ]
        super().__init__(trained, **kwargs)

    def trained_of(self, network: Network) -> list[keras.Model]:
        """The parts of a network that the stage trains."""
        raise NotImplementedError

    def terms_of(
        self, network: Network, inputs: dict[str, Any]
    ) -> dict[str, Any]:
        """Losses of a network, each `(batch,)`.

        Args:
            network: The network.
            inputs: A batch.
        """
        raise NotImplementedError

    @property
    def networks(self) -> tuple[Network, ...]:
        """The three networks."""
        return self._of_networks.content

    def needs(self) -> list[str]:
        names = [network.name for network in self.networks]
        if self.needs_pseudo_abnormal:
            names += [f"abnormal_{name}" for name in names]
        return names

    def terms(
        self, inputs: dict[str, Any], training: bool | None = None
    ) -> dict[str, Any]:
        return {
            name: term
            for network in self.networks
            for name, term in self.terms_of(network, inputs).items()
        }


# === Stages ===


class AutoEncoderStage(NetworkStage):
    """Stage 1: normal crops are reconstructed, objects segmented.

    Where batches hold no `mask`, the loss of the segmentation is 0.

    Args:
        networks: The three networks.
        error: `"mse"` or `"mae"`.
        segmentation_weight: Weight of the segmentation.
        **kwargs: As in `NetworkStage`.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        error: str,
        segmentation_weight: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(networks, **kwargs)
        self._error = error
        self._segmentation_weight = segmentation_weight

    def trained_of(self, network: Network) -> list[keras.Model]:
        parts = [network.encoder, network.decoder, network.segmentation]
        return [part for part in parts if part is not None]

    def loss_weights_by_name(self) -> dict[str, float]:
        weights = {f"{n.name}_reconstruction": 1.0 for n in self.networks}
        for network in self.networks:
            if network.segmentation is not None:
                name = f"{network.name}_segmentation"
                weights[name] = self._segmentation_weight
        return weights

    def terms_of(
        self, network: Network, inputs: dict[str, Any]
    ) -> dict[str, Any]:
        name = network.name
        crop = network.scaling(inputs[name])
        features = network.encoder(crop)
        terms = {
            f"{name}_reconstruction": self.error(
                crop, network.decoder(features)
            )
        }
        if network.segmentation is not None:
            logits = network.segmentation(features)
            terms[f"{name}_segmentation"] = (
                _per_object(_cross_entropy(inputs["mask"], logits))
                if "mask" in inputs
                # Zero, but with a gradient: optimizers warn of none.
                else 0.0 * _per_object(logits)
            )
        return terms

    def error(self, crop: Any, reconstruction: Any) -> Any:
        """Error of reconstructions, `(batch,)`."""
        return _per_object(ERRORS[self._error](reconstruction - crop))


class AdversarialStage(AutoEncoderStage):
    """Stage 2: as before, and pseudo-abnormal crops shall come out badly.

    The adversarial decoder learns to reconstruct pseudo-abnormal crops. Its
    gradient is reversed on its way into the encoder, which learns features that
    do not allow it.

    Args:
        networks: The three networks.
        adversarial_weight: Strength of the reversal.
        **kwargs: As in `AutoEncoderStage`.
    """

    needs_pseudo_abnormal = True

    def __init__(
        self,
        networks: Sequence[Network],
        adversarial_weight: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(networks, **kwargs)
        self.reversal = GradientReversal(adversarial_weight, name="reversal")

    def trained_of(self, network: Network) -> list[keras.Model]:
        return [*super().trained_of(network), network.adversarial]

    def loss_weights_by_name(self) -> dict[str, float]:
        weights = super().loss_weights_by_name()
        return weights | {f"{n.name}_adversarial": 1.0 for n in self.networks}

    def terms_of(
        self, network: Network, inputs: dict[str, Any]
    ) -> dict[str, Any]:
        terms = super().terms_of(network, inputs)
        crop = network.scaling(inputs[f"abnormal_{network.name}"])
        features = [self.reversal(part) for part in network.encoder(crop)]
        reconstruction = network.adversarial(features)
        terms[f"{network.name}_adversarial"] = self.error(crop, reconstruction)
        return terms


class ClassifierStage(NetworkStage):
    """Stage 3: classifiers tell normal from pseudo-abnormal crops.

    All else is fixed. Both classes have the same weight.
    """

    needs_pseudo_abnormal = True

    def __init__(self, networks: Sequence[Network], **kwargs: Any) -> None:
        fixed = [part for n in networks for part in (n.encoder, n.decoder)]
        super().__init__(networks, fixed=fixed, **kwargs)

    def trained_of(self, network: Network) -> list[keras.Model]:
        return [network.classifier]

    def loss_weights_by_name(self) -> dict[str, float]:
        return {f"{n.name}_classification": 1.0 for n in self.networks}

    def terms_of(
        self, network: Network, inputs: dict[str, Any]
    ) -> dict[str, Any]:
        normal, abnormal = (
            network.classifier(self._features(network, inputs[name]))
            for name in (network.name, f"abnormal_{network.name}")
        )
        # The cross-entropies of two logits, the second of which is normal.
        return {
            f"{network.name}_classification": 0.5
            * (
                ops.softplus(normal[:, 0] - normal[:, 1])
                + ops.softplus(abnormal[:, 1] - abnormal[:, 0])
            )
        }

    def _features(self, network: Network, crop: Any) -> list[Any]:
        with auxiliary_losses_disabled():
            features = error_and_latent(network, crop)[1]
        return [ops.stop_gradient(feature) for feature in features]


def error_and_latent(network: Network, crop: Any) -> tuple[Any, list[Any]]:
    """Runs an auto-encoder.

    Args:
        network: The network.
        crop: What its input gets.

    Returns:
        The reconstruction, and what the classifier looks at: its absolute error
        and the latent features.
    """
    scaled = network.scaling(crop)
    features = network.encoder(scaled)
    reconstruction = network.decoder(features)
    return reconstruction, [ops.absolute(scaled - reconstruction), features[0]]


def _per_object(values: Any) -> Any:
    return ops.mean(values, axis=(1, 2, 3))


def _cross_entropy(mask: Any, logits: Any) -> Any:
    target = ops.cast(mask, logits.dtype)
    return ops.binary_crossentropy(target, logits, from_logits=True)
