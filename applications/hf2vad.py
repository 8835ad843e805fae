"""HF2-VAD: crops predicted from flow that memories have rebuilt."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_sspcab.applications.hf2vad_memory import memory_autoencoder
from keras_sspcab.applications.hf2vad_stages import (
    JointStage,
    MemoryStage,
    PredictionStage,
    known_flows,
    predict_crop,
    rebuild_flows,
    vunet_inputs,
)
from keras_sspcab.applications.hf2vad_vunet import vunet
from keras_sspcab.checks import standardize_int
from keras_sspcab.hosts.arguments import check_input_shape, check_places
from keras_sspcab.hosts.frames import check_weights
from keras_sspcab.hosts.guide import HostGuide
from keras_sspcab.hosts.objects import ObjectModel, object_batches
from keras_sspcab.hosts.registry import register_application
from keras_sspcab.hosts.stages import Stage
from keras_sspcab.scoring import Calibration, ZScoreSum

PLACES = ("memory", "decoder")

STAGES = ("memory", "prediction", "joint")

# Of the paper that the block is from: 0.1 dominated in this host.
_LOSS_WEIGHT = 0.01


@register_application("hf2vad")
@keras.saving.register_keras_serializable(package="keras_sspcab")
class HF2VAD(ObjectModel):
    """Predicts the next crop of an object, from flow as memories rebuild it.

    An auto-encoder with memories rebuilds the optical flow of an object; a
    conditional variational auto-encoder predicts its last crop from those
    before and the rebuilt flow. Where motion is abnormal, the flow is rebuilt
    badly, and this spoils the prediction too. `raw_score` is the weighted sum
    of both errors, each in standard deviations of normal objects around their
    mean, which `fit_scoring` measures.

    Training has three stages (`training_stages`): the memories, with the last
    flow of each cube; the prediction, with the memories fixed; and both.

    References:
    - [Liu et al., ICCV 2021](https://arxiv.org/abs/2108.06852) and its code.
      Frame AUC 99.3 % on Ped2, 91.1 % on Avenue, 76.2 % on ShanghaiTech.
    - [Ristea et al., CVPR 2022](https://arxiv.org/abs/2111.09099), Table 3:
      without and with the block, micro AUC 89.9 and 90.9 %, RBDC 41.1 and
      62.3 % on Avenue.

    Open points: in which of both networks the block is, is not known, nor
    whether its loss weighs 0.01 (the paper of the block) or 0.001 (a later one,
    which refers to it). The reference selects the best epoch of each stage on
    the test set; here a stage goes on from the last epoch of the one before.
    The loss of the entropy in the third stage is the mean over the flows.

    The defaults are those of the reference: 57 million weights of memories. A
    tenth of the slots is enough for small sets.

    Args:
        input_shape: `(frames, height, width, channels)` of the cubes, two
            frames at least; height and width multiples of 16. Defaults to
            `(5, 32, 32, 3)`.
        sspcab: `"memory"` (the default) replaces the last convolution but one
            of the memory auto-encoder; `"decoder"` adds the block to the other
            network, between the last residual block and the output; both, or
            None.
        root_width: Channels of the memory auto-encoder at the largest scale.
            Defaults to 32.
        num_slots: Slots of each of its three memories. Defaults to 2000.
        shrink_threshold: Weight up to which a slot is ignored. None (the
            default) is `1 / num_slots`.
        base_width: Channels of the prediction at the largest scale. Defaults to
            64.
        dropout_rate: Dropout in its residual blocks. Defaults to 0.1.
        sspcab_options: Arguments of the `SSPCABLayer`s; `loss_weight` is 0.01
            unless given.
        flow_weight: Weight of the squared error of flow. Defaults to 1.
        entropy_weight: Weight of the entropy of the memories. Defaults to
            0.0002.
        prediction_weight: Weight of the squared error of crops. Defaults to 1.
        gradient_weight: Weight of the difference of gradients. Defaults to 1.
        divergence_weight: Weight of the Kullback-Leibler divergence. Defaults
            to 1.
        flow_score_weight: Weight of the flow in the score. Defaults to 1.
        prediction_score_weight: Weight of the prediction in the score. Defaults
            to 0.1, that for Ped2; others are not known.
        learning_rates: Rate of Adam that each stage begins with, 0.8 of it
            after five eighths of the steps. Defaults to `(1e-4, 1e-4, 8e-5)`.
        epochs: Epochs of the stages. Defaults to `(80, 80, 80)`.
        batch_sizes: Objects a batch. Defaults to `(256, 128, 128)`.
        calibration: A `Calibration`; set by `calibrate`.
        name: Name of the model.

    Inputs, a dict of float32 tensors: `appearance` `(batch, frames, height,
    width, channels)` in [0, 1], and `motion` `(batch, frames, height, width,
    2)`, the flow to each frame in pixels. The first flow is not used.

    Outputs besides the shared ones: `prediction` `(batch, height, width,
    channels)`; `flow_reconstruction` `(batch, frames - 1, height, width, 2)`;
    `flow_error` and `prediction_error` `(batch,)`, squared errors summed over
    the object. The map is the sum of both, weighted as in the score.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    >>> model = HF2VAD((5, 32, 32, 3), num_slots=200)
    >>> model.compile()
    >>> model.fit(normal_cubes, epochs=20)
    """

    # A quarter of the paper's widths and a tenth of its slots.
    default_settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "data": {"image_size": 32},
        "model": {"root_width": 8, "num_slots": 200, "base_width": 16},
        "evaluation": {"smoothing": "median", "smoothing_size": 17.0},
    }

    guide: ClassVar[HostGuide] = HostGuide(
        purpose="objects that move unusually; no detector needed",
        training_time="small width: 6 to 9 minutes (UCSD Ped2, a frame in 5, "
        "3 epochs a stage)",
        expectation="small width: micro AUC 96 on UCSD Ped2",
    )

    cube_kind: ClassVar[str] = "hf2vad"
    takes_frames: ClassVar[bool] = True

    def __init__(
        self,
        input_shape: Sequence[int] = (5, 32, 32, 3),
        sspcab: str | Sequence[str] | None = "memory",
        root_width: int = 32,
        num_slots: int = 2000,
        shrink_threshold: float | None = None,
        base_width: int = 64,
        dropout_rate: float = 0.1,
        sspcab_options: dict[str, Any] | None = None,
        flow_weight: float = 1.0,
        entropy_weight: float = 2e-4,
        prediction_weight: float = 1.0,
        gradient_weight: float = 1.0,
        divergence_weight: float = 1.0,
        flow_score_weight: float = 1.0,
        prediction_score_weight: float = 0.1,
        learning_rates: Sequence[float] = (1e-4, 1e-4, 8e-5),
        epochs: Sequence[int] = (80, 80, 80),
        batch_sizes: Sequence[int] = (256, 128, 128),
        calibration: Calibration | dict[str, Any] | None = None,
        name: str = "hf2vad",
    ) -> None:
        # === Arguments ===
        frames, height, width, channels = _check_cubes(input_shape)
        places = check_places(sspcab, PLACES)
        weights = check_weights(
            flow=flow_weight,
            entropy=entropy_weight,
            prediction=prediction_weight,
            gradient=gradient_weight,
            divergence=divergence_weight,
        )
        arguments: dict[str, Any] = {
            "input_shape": (frames, height, width, channels),
            "sspcab": places or None,
            "root_width": root_width,
            "num_slots": num_slots,
            "shrink_threshold": shrink_threshold,
            "base_width": base_width,
            "dropout_rate": dropout_rate,
            "sspcab_options": sspcab_options,
            **{f"{term}_weight": weight for term, weight in weights.items()},
            "flow_score_weight": flow_score_weight,
            "prediction_score_weight": prediction_score_weight,
            "learning_rates": _each_stage(learning_rates, "learning_rates"),
            "epochs": _each_stage(epochs, "epochs"),
            "batch_sizes": _each_stage(batch_sizes, "batch_sizes"),
        }

        # === Networks ===
        block = {"loss_weight": _LOSS_WEIGHT, **(sspcab_options or {})}

        def block_of(place: str) -> dict[str, Any] | None:
            named = {"name": f"sspcab_{place}", **block}
            return named if place in places else None

        memory = memory_autoencoder(
            (height, width, 2),
            root_width,
            num_slots,
            shrink_threshold,
            block_of("memory"),
        )
        predictor = vunet(
            (height, width, channels),
            frames - 1,
            base_width,
            dropout_rate,
            block_of("decoder"),
        )

        # === Functional model ===
        size = frames, height, width
        appearance = keras.Input((*size, channels), name="appearance")
        motion = keras.Input((*size, 2), name="motion")
        flows = known_flows(motion)
        rebuilt = rebuild_flows(memory, flows)
        prediction = predict_crop(predictor, appearance, rebuilt)["prediction"]
        flow_map = ops.sum(ops.square(rebuilt - flows), axis=(1, 4))
        prediction_map = ops.sum(
            ops.square(prediction - appearance[:, -1]), axis=-1
        )
        scored = ZScoreSum(
            (flow_score_weight, prediction_score_weight), name="object_score"
        )([flow_map, prediction_map])
        super().__init__(
            inputs={"appearance": appearance, "motion": motion},
            outputs=self.detector_outputs(
                scored["score"],
                scored["map"],
                calibration,
                prediction=prediction,
                flow_reconstruction=rebuilt,
                flow_error=ops.sum(flow_map, axis=(1, 2)),
                prediction_error=ops.sum(prediction_map, axis=(1, 2)),
            ),
            name=name,
        )
        self._loss_weights = weights
        self.arguments = arguments

    @property
    def networks(self) -> dict[str, keras.Model]:
        """The memory auto-encoder and the network that predicts."""
        return {
            "memory_autoencoder": self.get_layer("memory_autoencoder"),
            "vunet": self.get_layer("vunet"),
        }

    def network_inputs(
        self, objects: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        """Single flows for the memories; frames and rebuilt flows for VUNet.

        Args:
            objects: A batch of inputs of the host.
        """
        flows = np.asarray(known_flows(objects["motion"]))
        rebuilt = self.predict_on_batch(dict(objects))["flow_reconstruction"]
        return {
            "memory_autoencoder": flows.reshape(-1, *flows.shape[2:]),
            "vunet": vunet_inputs(
                np.asarray(objects["appearance"]), np.asarray(rebuilt)
            ),
        }

    @property
    def empty_score(self) -> float:
        """The score of an object without any error, as the reference has it."""
        return self.get_layer("object_score").score_of_nothing

    def fit_scoring(self, data: Any) -> None:
        """Measures mean and deviation of both errors.

        Args:
            data: The normal training objects: a dict of arrays, or an iterable
                of batches, with or without an index.
        """
        parts = []
        for objects, _ in object_batches(data):
            outputs = self.predict_on_batch(objects)
            errors = outputs["flow_error"], outputs["prediction_error"]
            parts.append(np.stack([np.asarray(e) for e in errors], axis=-1))
        layer = self.get_layer("object_score")
        layer.fit(np.concatenate(parts) if parts else np.empty((0, 2)))
        # Compiled functions may hold what was fitted before as constants.
        self.predict_function = None
        self.test_function = None

    def training_stages(self) -> tuple[Stage, ...]:
        """The stages, one after the other, with models of their own.

        Their layers are the model's: what a stage trains is trained.
        """
        networks: Mapping[str, Any] = self.networks
        memory, predictor = networks["memory_autoencoder"], networks["vunet"]
        weights = self._loss_weights
        of_memory = {name: weights[name] for name in ("flow", "entropy")}
        of_prediction = {
            name: weights[name]
            for name in ("prediction", "gradient", "divergence")
        }
        rates = self.arguments["learning_rates"]
        shared: dict[str, Any] = {"dtype": self.dtype_policy}
        models = (
            MemoryStage(
                memory,
                weights=of_memory,
                name=STAGES[0],
                rate=rates[0],
                **shared,
            ),
            PredictionStage(
                memory,
                predictor,
                weights=of_prediction,
                name=STAGES[1],
                rate=rates[1],
                **shared,
            ),
            JointStage(
                memory,
                predictor,
                weights={**of_memory, **of_prediction},
                name=STAGES[2],
                rate=rates[2],
                **shared,
            ),
        )
        return tuple(
            Stage(model.name, model, epochs, batch_size)
            for model, epochs, batch_size in zip(
                models,
                self.arguments["epochs"],
                self.arguments["batch_sizes"],
                strict=True,
            )
        )


# === Checks ===


def _check_cubes(shape: Sequence[int]) -> tuple[int, int, int, int]:
    shape = tuple(shape)
    if len(shape) != 4 or None in shape:
        raise ValueError(
            "`input_shape` must be (frames, height, width, channels), all of "
            f"them known. Received: input_shape={shape}"
        )
    if shape[0] < 2:
        raise ValueError(
            "Cubes must have two frames at least, the last of which is "
            f"predicted. Received: input_shape={shape}"
        )
    check_input_shape(shape[1:], 16)
    return shape


def _each_stage(values: Any, name: str) -> tuple[Any, ...]:
    """Returns a value for each stage, or raises a ValueError."""
    given = tuple(values) if isinstance(values, Sequence) else (values,) * 3
    if len(given) != len(STAGES):
        raise ValueError(
            f"`{name}` must be three numbers, one for each stage. "
            f"Received: {name}={values!r}"
        )
    if name == "learning_rates":
        if not all(0 < float(rate) < float("inf") for rate in given):
            raise ValueError(
                "`learning_rates` must be positive and finite. "
                f"Received: learning_rates={values!r}"
            )
        return tuple(float(rate) for rate in given)
    least = 0 if name == "epochs" else 1
    return tuple(standardize_int(count, name, least) for count in given)
