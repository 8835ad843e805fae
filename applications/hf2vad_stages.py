"""The three stages in which HF2-VAD is trained."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_sspcab.hosts.stages import StageModel
from keras_sspcab.layers import (
    auxiliary_losses_disabled,
    auxiliary_losses_scaled,
)
from keras_sspcab.losses import summed_gradient_difference


class _HF2VADStage(StageModel):
    """A stage with one or both networks.

    Args:
        memory: The memory auto-encoder.
        vunet: The network that predicts; None where a stage has no use for it.
        weights: Weights of the losses, by name; those of others are left out.
        **kwargs: As in `StageModel`.
    """

    # The rate falls every 50 epochs, and there are 80.
    decay = (50 / 80, 0.8)

    def __init__(
        self,
        memory: keras.Model,
        vunet: keras.Model | None,
        weights: Mapping[str, float],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.memory = memory
        self.vunet = vunet
        self._loss_weights = dict(weights)

    def needs(self) -> list[str]:
        return ["appearance", "motion"]

    def loss_weights_by_name(self) -> dict[str, float]:
        return self._loss_weights


class MemoryStage(_HF2VADStage):
    """Stage 1: the memory auto-encoder rebuilds the last flow."""

    def __init__(self, memory: keras.Model, **kwargs: Any) -> None:
        super().__init__(memory, None, trained=[memory], **kwargs)

    def terms(
        self, inputs: dict[str, Any], training: bool | None = None
    ) -> dict[str, Any]:
        flow = inputs["motion"][:, -1]
        outputs = self.memory(flow, training=training)
        return {
            "flow": ops.mean(
                ops.square(outputs["reconstruction"] - flow), axis=(1, 2, 3)
            ),
            "entropy": outputs["entropy"],
        }


class PredictionStage(_HF2VADStage):
    """Stage 2: the next crop is predicted; the memories are fixed."""

    def __init__(
        self, memory: keras.Model, vunet: keras.Model, **kwargs: Any
    ) -> None:
        super().__init__(
            memory, vunet, trained=[vunet], fixed=[memory], **kwargs
        )

    def terms(
        self, inputs: dict[str, Any], training: bool | None = None
    ) -> dict[str, Any]:
        flows = known_flows(inputs["motion"])
        with auxiliary_losses_disabled():
            rebuilt = rebuild_flows(self.memory, flows, training=False)
        rebuilt = ops.stop_gradient(rebuilt)
        return self.prediction_terms(inputs, rebuilt, training)

    def prediction_terms(
        self, inputs: dict[str, Any], rebuilt: Any, training: bool | None
    ) -> dict[str, Any]:
        """Losses of the prediction from what is left of the flows."""
        appearance = inputs["appearance"]
        outputs = predict_crop(
            self.vunet, appearance, rebuilt, training=training
        )
        target, predicted = appearance[:, -1], outputs["prediction"]
        return {
            "prediction": ops.mean(
                ops.square(predicted - target), axis=(1, 2, 3)
            ),
            "gradient": summed_gradient_difference(target, predicted),
            "divergence": outputs["divergence"],
        }


class JointStage(PredictionStage):
    """Stage 3: both are trained, with all losses.

    The flows go through the auto-encoder one by one, so that its batch
    normalization sees those of one time together, as the reference has it; of
    the terms of blocks in it, the mean counts.
    """

    def __init__(
        self, memory: keras.Model, vunet: keras.Model, **kwargs: Any
    ) -> None:
        _HF2VADStage.__init__(
            self, memory, vunet, trained=[memory, vunet], **kwargs
        )

    def terms(
        self, inputs: dict[str, Any], training: bool | None = None
    ) -> dict[str, Any]:
        flows = known_flows(inputs["motion"])
        count = flows.shape[1]
        with auxiliary_losses_scaled(1 / count):
            outputs = [
                self.memory(flows[:, i], training=training)
                for i in range(count)
            ]
        rebuilt = ops.stack([o["reconstruction"] for o in outputs], axis=1)
        return {
            "flow": ops.mean(ops.square(rebuilt - flows), axis=(1, 2, 3, 4)),
            "entropy": sum(o["entropy"] for o in outputs) / count,
            **self.prediction_terms(inputs, rebuilt, training),
        }


def known_flows(motion: Any) -> Any:
    """The flows that a prediction may use: all but the first of a cube.

    The first one leads to the first frame from what was before the cube.
    """
    return motion[:, 1:]


def rebuild_flows(memory: keras.Model, flows: Any, **arguments: Any) -> Any:
    """Runs the auto-encoder on all flows of cubes at once.

    Args:
        memory: The memory auto-encoder.
        flows: Tensor `(batch, frames, height, width, 2)`.
        **arguments: For its call.

    Returns:
        What it rebuilds, of the same shape.
    """
    shape = tuple(flows.shape[1:])
    single = ops.reshape(flows, (-1, *shape[1:]))
    rebuilt = memory(single, **arguments)["reconstruction"]
    return ops.reshape(rebuilt, (-1, *shape))


def predict_crop(
    vunet: keras.Model, appearance: Any, flows: Any, **arguments: Any
) -> Any:
    """Predicts the last crop of cubes from the others and from flows.

    Args:
        vunet: The network that predicts.
        appearance: Tensor `(batch, frames, height, width, channels)`.
        flows: Tensor `(batch, frames - 1, height, width, 2)`.
        **arguments: For its call.

    Returns:
        The outputs of the network.
    """
    return vunet(vunet_inputs(appearance, flows), **arguments)


def vunet_inputs(appearance: Any, flows: Any) -> dict[str, Any]:
    """Puts the frames before the last one, and the flows, into channels.

    Args:
        appearance: Tensor `(batch, frames, height, width, channels)`.
        flows: Tensor `(batch, frames - 1, height, width, 2)`.
    """
    count = flows.shape[1]
    return {
        "frames": _stacked(appearance, count),
        "flows": _stacked(flows, count),
    }


def _stacked(frames: Any, count: int) -> Any:
    return ops.concatenate([frames[:, i] for i in range(count)], axis=-1)
