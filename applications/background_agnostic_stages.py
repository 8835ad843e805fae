"""The three stages in which the background-agnostic framework is trained."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

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


class StageModel(keras.Model):
    """A part of the training: its losses, and the layers that they train.

    The layers are those of the detector. A stage is trained by `fit` on batches
    of crops as dicts, without targets, and reports each loss by name.

    Args:
        networks: The three networks.
        name: Name of the stage.
        rate: Learning rate to begin with.
        **kwargs: Passed on.
    """

    needs_pseudo_abnormal = False

    def __init__(
        self, networks: Sequence[Network], name: str, rate: float, **kwargs: Any
    ) -> None:
        # Crops are not rounded: the layers cast what they get.
        super().__init__(name=name, autocast=False, **kwargs)
        self._rate = rate
        self._networks = _Untracked(networks)
        self.parts = [
            part for network in networks for part in self.trained_parts(network)
        ]
        # All layers are.
        self.built = True

    # === What a stage decides ===

    def trained_parts(self, network: Network) -> list[keras.Model]:
        """The parts of a network that the stage trains."""
        raise NotImplementedError

    def loss_weights_by_name(self) -> dict[str, float]:
        """The losses and their weights."""
        raise NotImplementedError

    def terms(self, network: Network, inputs: dict[str, Any]) -> dict[str, Any]:
        """Losses of a network, each `(batch,)`.

        Args:
            network: The network.
            inputs: A batch.
        """
        raise NotImplementedError

    # === What they share ===

    @property
    def networks(self) -> tuple[Network, ...]:
        """The three networks."""
        return self._networks.content

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Returns the losses by name, each float32 `(batch, 1)`."""
        self._require(inputs)
        return {
            name: ops.cast(term, "float32")[:, None]
            for network in self.networks
            for name, term in self.terms(network, inputs).items()
        }

    def compile(
        self,
        optimizer: Any = None,
        *,
        learning_rate: float | None = None,
        steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Configures the stage.

        Args:
            optimizer: As in `keras.Model.compile`. None takes Adam, whose rate
                falls to a tenth after half of the steps.
            learning_rate: The rate it begins with; None takes the host's.
            steps: Steps of the stage; None leaves the rate constant.
            **kwargs: Passed on.
        """
        if optimizer is None:
            rate: Any = learning_rate or self._rate
            if steps is not None:
                rate = keras.optimizers.schedules.PiecewiseConstantDecay(
                    [steps // 2], [rate, rate / 10]
                )
            optimizer = keras.optimizers.Adam(rate)
        elif learning_rate is not None or steps is not None:
            raise ValueError(
                "`learning_rate` and `steps` are for the stage's own optimiser."
                f" Received: optimizer={optimizer!r}, "
                f"learning_rate={learning_rate}, steps={steps}"
            )
        weights = self.loss_weights_by_name()
        super().compile(
            optimizer,
            # They are losses already, not negative: compared with zeros.
            loss={name: keras.losses.MeanAbsoluteError() for name in weights},
            loss_weights=weights,
            **kwargs,
        )
        self.optimizer.build(self.trainable_variables)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        zeros = {name: ops.zeros_like(term) for name, term in y_pred.items()}
        return super().compute_loss(x, zeros, y_pred, sample_weight, training)

    def _require(self, inputs: Any) -> None:
        names = [network.name for network in self.networks]
        hint = ""
        if self.needs_pseudo_abnormal:
            names += [f"abnormal_{name}" for name in names]
            hint = (
                ". keras_sspcab.data.pseudo_abnormal.add_pseudo_abnormal adds "
                "pseudo-abnormal crops"
            )
        received = sorted(inputs) if isinstance(inputs, dict) else type(inputs)
        if not isinstance(inputs, dict) or set(names) - set(inputs):
            raise ValueError(
                f"The stage {self.name} needs batches with the keys {names}. "
                f"Received: {received}{hint}"
            )


class _Untracked:
    """Holds what Keras would take for more layers of the model."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self.content = tuple(networks)


# === Stages ===


class AutoEncoderStage(StageModel):
    """Stage 1: normal crops are reconstructed, objects segmented.

    Where batches hold no `mask`, the loss of the segmentation is 0.

    Args:
        networks: The three networks.
        error: `"mse"` or `"mae"`.
        segmentation_weight: Weight of the segmentation.
        **kwargs: As in `StageModel`.
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

    def trained_parts(self, network: Network) -> list[keras.Model]:
        parts = [network.encoder, network.decoder, network.segmentation]
        return [part for part in parts if part is not None]

    def loss_weights_by_name(self) -> dict[str, float]:
        weights = {f"{n.name}_reconstruction": 1.0 for n in self.networks}
        for network in self.networks:
            if network.segmentation is not None:
                name = f"{network.name}_segmentation"
                weights[name] = self._segmentation_weight
        return weights

    def terms(self, network: Network, inputs: dict[str, Any]) -> dict[str, Any]:
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
                # Zero, but with a gradient: optimisers warn of none.
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

    def trained_parts(self, network: Network) -> list[keras.Model]:
        return [*super().trained_parts(network), network.adversarial]

    def loss_weights_by_name(self) -> dict[str, float]:
        weights = super().loss_weights_by_name()
        return weights | {f"{n.name}_adversarial": 1.0 for n in self.networks}

    def terms(self, network: Network, inputs: dict[str, Any]) -> dict[str, Any]:
        terms = super().terms(network, inputs)
        crop = network.scaling(inputs[f"abnormal_{network.name}"])
        features = [self.reversal(part) for part in network.encoder(crop)]
        reconstruction = network.adversarial(features)
        terms[f"{network.name}_adversarial"] = self.error(crop, reconstruction)
        return terms


class ClassifierStage(StageModel):
    """Stage 3: classifiers tell normal from pseudo-abnormal crops.

    All else is fixed. Both classes have the same weight.
    """

    needs_pseudo_abnormal = True

    def __init__(self, networks: Sequence[Network], **kwargs: Any) -> None:
        super().__init__(networks, **kwargs)
        # Not trained, but in checkpoints.
        self.fixed_parts = [
            part for n in networks for part in (n.encoder, n.decoder)
        ]

    def trained_parts(self, network: Network) -> list[keras.Model]:
        return [network.classifier]

    def loss_weights_by_name(self) -> dict[str, float]:
        return {f"{n.name}_classification": 1.0 for n in self.networks}

    def terms(self, network: Network, inputs: dict[str, Any]) -> dict[str, Any]:
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

    @property
    def trainable_variables(self) -> list[Any]:
        """The variables of the classifiers."""
        return [v for part in self.parts for v in part.trainable_variables]

    @property
    def non_trainable_variables(self) -> list[Any]:
        """All others."""
        trained = {id(variable) for variable in self.trainable_variables}
        return [v for v in self.variables if id(v) not in trained]

    @property
    def trainable_weights(self) -> list[Any]:
        """As `trainable_variables`."""
        return self.trainable_variables

    @property
    def non_trainable_weights(self) -> list[Any]:
        """As `non_trainable_variables`."""
        return self.non_trainable_variables

    @property
    def metrics(self) -> list[Any]:
        """The metrics without those of the blocks, which add no loss here."""
        of_blocks = {
            id(metric)
            for part in self.fixed_parts
            for layer in part._flatten_layers()
            for metric in layer.metrics
        }
        return [m for m in super().metrics if id(m) not in of_blocks]


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
