"""Background-agnostic framework: objects that are rebuilt badly."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_sspcab.applications import background_agnostic_network as parts
from keras_sspcab.applications.background_agnostic_network import Network
from keras_sspcab.checks import standardize_choice, standardize_int
from keras_sspcab.hosts.arguments import (
    check_input_shape,
    check_places,
    check_positive,
    check_stages,
    check_weights,
)
from keras_sspcab.hosts.base import HostGuide, Settings
from keras_sspcab.hosts.objects import ObjectModel
from keras_sspcab.hosts.registry import register_application
from keras_sspcab.hosts.stages import Stage
from keras_sspcab.scoring import AnomalyProbability, Calibration

#: Errors of a reconstruction, by name.
ERRORS = {"mse": ops.square, "mae": ops.absolute}

PLACES = ("decoder", "adversarial", "segmentation")

INPUTS = ("appearance", "previous_motion", "next_motion")


@register_application("background_agnostic")
@keras.saving.register_keras_serializable(package="keras_sspcab")
class BackgroundAgnostic(ObjectModel):
    """Judges objects by how an auto-encoder of normal ones rebuilds them.

    Three auto-encoders look at one object of one frame: at its gray crop, and
    at the optical flow to this frame and to the next. A classifier for each
    tells, from the absolute error of the reconstruction and the latent
    features, how probably the object is normal. `raw_score` is 1 minus the mean
    of the three probabilities; the map is the absolute error of the appearance.
    The background is not seen at all, so it may be another one.

    Training has three stages (`training_stages`): the auto-encoders, with
    normal objects; the same along with adversarial decoders, whose gradient on
    pseudo-abnormal objects is reversed in the encoders; and the classifiers,
    with both and with everything else fixed. The auto-encoder of the appearance
    also learns to segment the object, where batches hold masks.

    References:
    - Georgescu et al., "A Background-Agnostic Framework with Adversarial
      Training for Abnormal Event Detection in Video", TPAMI 2021. Frame AUC
      (micro / macro) 92.3 / 90.4 % on Avenue, 82.7 / 89.3 % on ShanghaiTech.
    - [Ristea et al., CVPR 2022](https://arxiv.org/abs/2111.09099), Table 3:
      with the block 92.9 / 91.9 % and 83.6 / 89.5 %.

    The authors' code is not public, and this is a reading of what is known
    about it, no reproduction: layers and data flow are well supported, while
    the arguments from `output_activation` on are guesses.

    An object at either end of a video lacks one of both flows: `score_objects`
    counts the two classifiers that have seen something, `raw_score` all three.

    Args:
        input_shape: `(height, width, channels)` of the appearance; height and
            width multiples of 32. Flows have the same size and 2 channels.
            Defaults to `(64, 64, 1)`.
        sspcab: Decoders whose last convolution but one the block replaces, in
            each network: `"decoder"` (the default), `"adversarial"`,
            `"segmentation"`, several of them, or None.
        base_width: Channels of the wide convolutions, even; others have half.
            Defaults to 32.
        output_activation: Activation of the reconstructed appearance. Defaults
            to `"sigmoid"`; a predecessor has `"linear"`.
        motion_activation: Activation of the reconstructed flow. Defaults to
            `"linear"`: flow has a sign.
        motion_scale: What flow in pixels is multiplied by at first. Defaults to
            1.
        skip_connections: Blocks of each decoder whose output, after the ReLU,
            the encoder's map of the same size is added to. Defaults to `("d1",
            "d2", "d3")`, all; a figure of the authors shows two, and not which.
        reconstruction_loss: `"mse"` (the default) or `"mae"`.
        segmentation_weight: Weight of the segmentation beside the
            reconstruction. Defaults to 1; 0 leaves its decoder out.
        adversarial_weight: Strength `mu` of the reversed gradient: encoders get
            that of the adversarial decoder times `-mu`. Defaults to 0.1.
        classifier_units: Units of the hidden layer of a classifier. Defaults to
            128.
        learning_rate: Rate of Adam that each stage begins with. Defaults to
            1e-3.
        epochs: Epochs of the three stages. Defaults to `(200, 200, 200)`, the
            100 + 100 of a predecessor.
        batch_size: Objects a batch. Defaults to 64.

    All other arguments are those of `AnomalyModel`.

    Inputs, a dict of float32 tensors: `appearance` `(batch, height, width,
    channels)` in [0, 1], `previous_motion` and `next_motion` `(batch, height,
    width, 2)`, flow in pixels. In training also `mask` `(batch, height, width,
    1)`, 1 where the object is, and what `add_pseudo_abnormal` adds.

    Outputs besides the shared ones: `appearance_reconstruction`, as the
    appearance, and `normal_probability` `(batch, 3)`, in the order of the
    inputs above.

    Example:
    >>> model = BackgroundAgnostic((32, 32, 1), base_width=2)
    >>> [stage.name for stage in model.training_stages()]
    ['autoencoders', 'adversarial', 'classifiers']
    """

    default_settings: ClassVar[Settings] = {
        "data": {"channels": 1, "clip_length": 1},
        "model": {"base_width": 8},
    }

    takes_masks: ClassVar[bool] = True

    guide: ClassVar[HostGuide] = HostGuide(
        purpose="objects that look or move unusually; learns from "
        "pseudo-abnormal ones",
        training_time="small width: 2 to 3 minutes (UCSD Ped2, a frame in 5, "
        "2 epochs a stage)",
        expectation="small width: micro AUC 88 on UCSD Ped2",
    )

    def __init__(
        self,
        input_shape: Sequence[int] = (64, 64, 1),
        sspcab: str | Sequence[str] | None = "decoder",
        base_width: int = 32,
        sspcab_options: dict[str, Any] | None = None,
        output_activation: str = "sigmoid",
        motion_activation: str = "linear",
        motion_scale: float = 1.0,
        skip_connections: Sequence[str] = parts.SKIPS,
        reconstruction_loss: str = "mse",
        segmentation_weight: float = 1.0,
        adversarial_weight: float = 0.1,
        classifier_units: int = 128,
        learning_rate: float = 1e-3,
        epochs: Sequence[int] = (200, 200, 200),
        batch_size: int = 64,
        calibration: Calibration | dict[str, Any] | None = None,
        name: str = "background_agnostic",
    ) -> None:
        shape = check_input_shape(
            input_shape, 32, needs_size="the classifiers have dense layers"
        )
        width = standardize_int(base_width, "base_width", 2)
        if width % 2:
            raise ValueError(
                "The `base_width` argument must be even: some convolutions have"
                f" half as many channels. Received: base_width={base_width}"
            )
        builder = parts.NetworkBuilder(
            shape=shape,
            width=width,
            places=check_places(sspcab, PLACES),
            block=sspcab_options or {},
            output_activation=output_activation,
            motion_activation=motion_activation,
            motion_scale=check_positive(motion_scale, "motion_scale"),
            skips=check_places(
                skip_connections, parts.SKIPS, "skip_connections"
            ),
            units=standardize_int(classifier_units, "classifier_units", 1),
            segments=bool(segmentation_weight),
        )
        weights = check_weights(
            segmentation=segmentation_weight, adversarial=adversarial_weight
        )
        error = standardize_choice(
            reconstruction_loss, tuple(ERRORS), "reconstruction_loss"
        )
        schedule: dict[str, Any] = {
            "learning_rate": check_positive(learning_rate, "learning_rate"),
            "batch_size": standardize_int(batch_size, "batch_size", 1),
        }
        counts = check_stages(epochs, "epochs", standardize_int, 0)

        # === Functional model ===
        networks = [builder.build(name) for name in INPUTS]
        crops = {
            network.name: keras.Input(
                network.encoder.input_shape[1:], name=network.name
            )
            for network in networks
        }
        reconstructions, probabilities = [], []
        for network in networks:
            reconstruction, features = network.rebuild(crops[network.name])
            logits = network.classifier(features)
            probability = AnomalyProbability(name=f"{network.name}_normal")
            reconstructions.append(reconstruction)
            probabilities.append(probability(logits))
        raw_map = ops.mean(
            ops.absolute(crops["appearance"] - reconstructions[0]), axis=-1
        )
        normal = ops.stack(probabilities, axis=-1)
        super().__init__(
            inputs=crops,
            outputs=self.detector_outputs(
                1.0 - ops.mean(normal, axis=-1),
                raw_map,
                calibration,
                appearance_reconstruction=reconstructions[0],
                normal_probability=normal,
            ),
            name=name,
        )

        # === What is there for training ===
        self.training_parts = [
            part
            for network in networks
            for part in (network.adversarial, network.segmentation)
            if part is not None
        ]
        self._networks = tuple(networks)
        self._weights, self._error = weights, ERRORS[error]
        self._schedule, self._epochs = schedule, counts

    @staticmethod
    def cube_inputs(cubes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The last frame in gray, the flow to it, and the flow from it."""
        from keras_sspcab.data.objects import to_gray

        return {
            "appearance": to_gray(cubes["appearance"][:, -1]),
            "previous_motion": cubes["motion"][:, -1],
            "next_motion": cubes["next_motion"],
        }

    @property
    def networks(self) -> dict[str, keras.Model]:
        """Of each input, the auto-encoder and the classifier.

        The former gives `reconstruction`, `error`, its absolute error, and
        `latent`; the latter takes these two and gives logits, the second for
        normal.
        """
        models = {}
        for network in self._networks:
            crop = keras.Input(
                network.encoder.input_shape[1:], name=network.name
            )
            reconstruction, (error, latent) = network.rebuild(crop)
            name = f"{network.name}_autoencoder"
            models[name] = keras.Model(
                crop,
                {
                    "reconstruction": reconstruction,
                    "error": error,
                    "latent": latent,
                },
                name=name,
            )
            models[network.classifier.name] = network.classifier
        return models

    def network_inputs(
        self, objects: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        """Crops for the auto-encoders; what they give for the classifiers."""
        networks = self.networks
        given: dict[str, Any] = {}
        for name in INPUTS:
            encoder = f"{name}_autoencoder"
            given[encoder] = objects[name]
            outputs = networks[encoder].predict_on_batch(objects[name])
            given[f"{name}_classifier"] = [outputs["error"], outputs["latent"]]
        return given

    @property
    def empty_score(self) -> float:
        """0: where there is no object, nothing is abnormal."""
        return 0.0

    def object_scores(
        self,
        outputs: Mapping[str, np.ndarray],
        is_first: np.ndarray,
        is_last: np.ndarray,
    ) -> np.ndarray:
        """Leaves out the classifiers of flows that do not exist."""
        normal = np.array(outputs["normal_probability"])
        normal[is_first, INPUTS.index("previous_motion")] = np.nan
        normal[is_last, INPUTS.index("next_motion")] = np.nan
        return 1.0 - np.nanmean(normal, axis=-1)

    def training_stages(self) -> tuple[Stage, ...]:
        """Returns the three stages of the training.

        They train the auto-encoders, the auto-encoders against adversarial
        decoders, and the classifiers. The adversarial decoders learn to rebuild
        pseudo-abnormal crops; their gradient is reversed on its way into the
        encoders, which learn features that do not allow it.
        """
        networks = self._networks
        rebuild = partial(Network.rebuilding_terms, error=self._error)
        oppose = partial(
            Network.adversarial_terms,
            error=self._error,
            strength=self._weights["adversarial"],
        )

        def stage(
            index: int,
            functions: Sequence[Callable[..., dict[str, Any]]],
            loss_weights: dict[str, float],
            trained: list[Any],
            fixed: Sequence[Any] = (),
        ) -> Stage:
            def terms(batch: Any, training: bool | None) -> dict[str, Any]:
                return {
                    name: term
                    for network in networks
                    for function in functions
                    for name, term in function(network, batch).items()
                }

            abnormal = [f"abnormal_{name}" for name in INPUTS]
            return Stage(
                terms,
                loss_weights,
                [*INPUTS, *abnormal] if index > 0 else INPUTS,
                trained,
                fixed,
                name=("autoencoders", "adversarial", "classifiers")[index],
                epochs=self._epochs[index],
                # Of a predecessor of the framework.
                decay=(0.5, 0.1),
                dtype=self.dtype_policy,
                **self._schedule,
            )

        def losses(kind: str) -> dict[str, float]:
            return {f"{name}_{kind}": 1.0 for name in INPUTS}

        rebuilding = losses("reconstruction")
        if networks[0].segmentation is not None:
            weight = self._weights["segmentation"]
            rebuilding["appearance_segmentation"] = weight
        return (
            stage(
                0,
                [rebuild],
                rebuilding,
                [p for n in networks for p in n.rebuilding_parts],
            ),
            stage(
                1,
                [rebuild, oppose],
                {**rebuilding, **losses("adversarial")},
                # The order of checkpoints.
                [
                    p
                    for n in networks
                    for p in (*n.rebuilding_parts, n.adversarial)
                ],
            ),
            stage(
                2,
                [Network.classification_terms],
                losses("classification"),
                [network.classifier for network in networks],
                [part for n in networks for part in (n.encoder, n.decoder)],
            ),
        )
