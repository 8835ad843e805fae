"""The plain auto-encoder of the SSPCAB paper, on objects of videos."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_sspcab.applications.autoencoder import PLACES, reconstruct
from keras_sspcab.checks import standardize_int
from keras_sspcab.hosts.arguments import (
    check_input_shape,
    check_places,
    check_positive,
)
from keras_sspcab.hosts.base import HostGuide, Settings
from keras_sspcab.hosts.objects import ObjectModel
from keras_sspcab.hosts.registry import register_application
from keras_sspcab.hosts.stages import Stage
from keras_sspcab.scoring import Calibration, MapPooling, SquaredError


@register_application("object_autoencoder")
@keras.saving.register_keras_serializable(package="keras_sspcab")
class ObjectAutoEncoder(ObjectModel):
    """Auto-encoder that scores objects by their reconstruction error.

    The network is that of `AutoEncoder`. It looks at the last frame of each
    object alone, not at its motion; the score is the mean squared error of the
    crop.

    Reference:
    - [Ristea et al., CVPR 2022](https://arxiv.org/abs/2111.09099), Tables 1, 4
      and 5. On Avenue without and with the block, late: micro AUC 80.0 and
      85.9 %, RBDC 50.0 and 53.8 %. How long it was trained, and at which rate,
      the paper does not say.

    Args:
        input_shape: `(height, width, channels)` of a crop. Defaults to
            `(64, 64, 1)`, the paper's.
        sspcab: As in `AutoEncoder`: `"early"`, `"middle"`, `"late"` (the
            default), several of them, or None.
        filters: As in `AutoEncoder`. Defaults to `(32, 32, 16)`.
        sspcab_options: Arguments of the `SSPCABLayer`s.
        output_activation: Activation of the reconstruction. Defaults to
            `"sigmoid"`.
        learning_rate: Rate of Adam. Defaults to 1e-3.
        epochs: Defaults to 20.
        batch_size: Objects a batch. Defaults to 32.

    All other arguments are those of `AnomalyModel`.

    Inputs, a dict: `appearance` `(batch, height, width, channels)`, float32 in
    [0, 1].

    Output besides the shared ones: `reconstruction`, as the input.

    Example:
    >>> model = ObjectAutoEncoder((32, 32, 1))
    >>> [stage.name for stage in model.training_stages()]
    ['reconstruction']
    """

    default_settings: ClassVar[Settings] = {
        "data": {"channels": 1, "clip_length": 1},
        "training": {"batch_size": 32},
    }

    guide: ClassVar[HostGuide] = HostGuide(
        purpose="objects that look unusual; the smallest network for video",
        training_time="2 to 5 minutes (UCSD Ped2, 500 steps)",
        expectation="micro AUC 67 on UCSD Ped2, after 500 steps",
    )

    def __init__(
        self,
        input_shape: Sequence[int] = (64, 64, 1),
        sspcab: str | Sequence[str] | None = "late",
        filters: Sequence[int] = (32, 32, 16),
        sspcab_options: dict[str, Any] | None = None,
        output_activation: str = "sigmoid",
        learning_rate: float = 1e-3,
        epochs: int = 20,
        batch_size: int = 32,
        calibration: Calibration | dict[str, Any] | None = None,
        name: str = "object_autoencoder",
    ) -> None:
        shape = check_input_shape(
            input_shape, needs_size="crops of objects have one size"
        )
        self._schedule: dict[str, Any] = {
            "learning_rate": check_positive(learning_rate, "learning_rate"),
            "epochs": standardize_int(epochs, "epochs", 0),
            "batch_size": standardize_int(batch_size, "batch_size", 1),
        }
        crop = keras.Input(shape, name="crop")
        network = keras.Model(
            crop,
            reconstruct(
                crop,
                check_places(sspcab, PLACES),
                filters,
                sspcab_options,
                output_activation,
            ),
            name="autoencoder",
        )
        appearance = keras.Input(shape, name="appearance")
        reconstruction = network(appearance)
        raw_map = SquaredError(name="error_map")(appearance, reconstruction)
        super().__init__(
            inputs={"appearance": appearance},
            outputs=self.detector_outputs(
                MapPooling("mean", name="pooling")(raw_map),
                raw_map,
                calibration,
                reconstruction=reconstruction,
            ),
            name=name,
        )

    @staticmethod
    def cube_inputs(cubes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The last frame."""
        return {"appearance": cubes["appearance"][:, -1]}

    @property
    def networks(self) -> dict[str, keras.Model]:
        """The auto-encoder."""
        return {"autoencoder": self.get_layer("autoencoder")}

    def network_inputs(
        self, objects: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        """The crops."""
        return {"autoencoder": objects["appearance"]}

    @property
    def empty_score(self) -> float:
        """0: where there is no object, there is no error."""
        return 0.0

    def training_stages(self) -> tuple[Stage, ...]:
        """One stage, on the squared error."""
        network = self.get_layer("autoencoder")

        def terms(
            inputs: Mapping[str, Any], training: bool | None
        ) -> dict[str, Any]:
            crop = inputs["appearance"]
            error = ops.square(network(crop, training=training) - crop)
            return {"error": ops.mean(error, axis=(1, 2, 3))}

        return (
            Stage(
                terms,
                {"error": 1.0},
                ["appearance"],
                [network],
                name="reconstruction",
                # The rate stays.
                decay=(1.0, 1.0),
                dtype=self.dtype_policy,
                **self._schedule,
            ),
        )
