"""Several detectors as one."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_sspcab.hosts.base import AnomalyModel
from keras_sspcab.scoring import Calibration


@keras.saving.register_keras_serializable(package="keras_sspcab")
class Ensemble(AnomalyModel):
    """Averages the calibrated scores and maps of several detectors.

    Each member counts in standard deviations of normal images, so members of
    different kinds can be mixed. The mean of several varies less with normal
    images than each of them does: calibrate the ensemble as a whole.

    References:
    - [Li et al., CVPR 2021](https://arxiv.org/abs/2104.04015), Table 1: five
      CutPaste models of different seeds, 96.1 % instead of 95.2 %. How their
      scores are normalized before the mean is not described there.

    Args:
        members: Calibrated detectors with the same input shape. They are
            copied, without their optimizers: what is done to one later does not
            change the ensemble.
        calibration: A `Calibration`; set by `calibrate`.
        name: Name of the model.

    Raises:
        ValueError: If there is no member, one is no detector or has not been
            calibrated, or their inputs are dicts or have different shapes.

    Example:
    >>> from keras_sspcab.applications import AutoEncoder
    >>> normal = np.zeros((4, 16, 16, 1), "float32")
    >>> members = [AutoEncoder((16, 16, 1)), AutoEncoder((16, 16, 1))]
    >>> for member in members:
    ...     _ = member.calibrate(normal)
    >>> Ensemble(members).calibrate(normal).num_images
    4
    """

    def __init__(
        self,
        members: Sequence[AnomalyModel],
        calibration: Calibration | dict[str, Any] | None = None,
        name: str = "ensemble",
    ) -> None:
        members = _check_members(members)

        # === Functional model ===
        copies = [
            _copy(member, f"member{number}")
            for number, member in enumerate(members, 1)
        ]
        image = keras.Input(members[0].input_shape[1:], name="image")
        outputs = [member(image) for member in copies]

        def mean(output: str) -> Any:
            return ops.mean(ops.stack([each[output] for each in outputs]), 0)

        super().__init__(
            inputs=image,
            outputs=self.detector_outputs(
                mean("anomaly_score"), mean("anomaly_map"), calibration
            ),
            name=name,
        )

        # === Config ===
        self.arguments = {}
        self.preprocessing = members[0].preprocessing

    @property
    def members(self) -> list[AnomalyModel]:
        """The members, in the order in which they were given."""
        return [
            layer for layer in self.layers if isinstance(layer, AnomalyModel)
        ]

    def fit(self, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
        """Refuses: members are trained on their own."""
        raise _not_trainable(self.name)

    def default_losses(self) -> dict[str, Any]:
        """Refuses: members are trained on their own."""
        raise _not_trainable(self.name)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "members": [
                keras.saving.serialize_keras_object(member)
                for member in self.members
            ],
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> "Ensemble":
        members = [
            keras.saving.deserialize_keras_object(member, custom_objects)
            for member in config["members"]
        ]
        return super().from_config({**config, "members": members})


def _copy(member: AnomalyModel, name: str) -> AnomalyModel:
    """Copies a detector: its architecture, calibration and weights."""
    copy = type(member).from_config({**member.get_config(), "name": name})
    copy.set_weights(member.get_weights())
    return copy


def _check_members(members: Any) -> list[AnomalyModel]:
    members = list(members)
    if not members:
        raise ValueError(
            "An ensemble needs at least one member. Received: members=[]"
        )
    for member in members:
        if not isinstance(member, AnomalyModel):
            raise ValueError(
                "The members of an ensemble must be detectors (subclasses of "
                f"AnomalyModel). Received: {member!r}"
            )
        if isinstance(member.input, Mapping):
            raise ValueError(
                "The members of an ensemble must take images or clips. "
                f"Received: {member.name}, which takes dicts of "
                f"{', '.join(member.input)}"
            )
        if not member.calibration.is_calibrated:
            raise ValueError(
                f"{member.name} has not been calibrated: its scores cannot be "
                "averaged with others. Call `calibrate` with normal images "
                "first"
            )
    shapes = [member.input_shape[1:] for member in members]
    if len(set(shapes)) > 1:
        raise ValueError(
            "The members of an ensemble must take images of the same shape. "
            "Received: "
            + ", ".join(
                f"{member.name} for {shape}"
                for member, shape in zip(members, shapes, strict=True)
            )
        )
    if len({member.preprocessing for member in members}) > 1:
        raise ValueError(
            "The members of an ensemble must read images alike. Received: "
            + ", ".join(
                f"{member.name} with {member.preprocessing}"
                for member in members
            )
        )
    return members


def _not_trainable(name: str) -> ValueError:
    return ValueError(
        f"{name} is an ensemble and is not trained: train and calibrate its "
        "members, make an ensemble of them, and calibrate that"
    )
