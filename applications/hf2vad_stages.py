"""The losses of the three stages in which HF2-VAD is trained."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_sspcab.layers import (
    auxiliary_losses_disabled,
    auxiliary_losses_scaled,
)
from keras_sspcab.losses import summed_gradient_difference

#: The memory auto-encoder and the network that predicts.
Networks = Mapping[str, keras.Model]

Batch = Mapping[str, Any]


def memory_terms(
    networks: Networks, inputs: Batch, training: bool | None
) -> dict[str, Any]:
    """Stage 1: the memory auto-encoder rebuilds the last flow."""
    flow = inputs["motion"][:, -1]
    outputs = networks["memory_autoencoder"](flow, training=training)
    error = ops.square(outputs["reconstruction"] - flow)
    return {
        "flow": ops.mean(error, axis=(1, 2, 3)),
        "entropy": outputs["entropy"],
    }


def prediction_terms(
    networks: Networks, inputs: Batch, training: bool | None
) -> dict[str, Any]:
    """Stage 2: the next crop is predicted; the memories are fixed."""
    memory = networks["memory_autoencoder"]
    with auxiliary_losses_disabled():
        rebuilt = rebuild_flows(
            memory, known_flows(inputs["motion"]), training=False
        )
    return _errors_of_prediction(
        networks, inputs, ops.stop_gradient(rebuilt), training
    )


def joint_terms(
    networks: Networks, inputs: Batch, training: bool | None
) -> dict[str, Any]:
    """Stage 3: both are trained, with all losses.

    The flows go through the auto-encoder one by one, so that its batch
    normalization sees those of one time together, as the reference has it;
    of the terms of blocks in it, the mean counts.
    """
    memory = networks["memory_autoencoder"]
    flows = known_flows(inputs["motion"])
    count = flows.shape[1]
    with auxiliary_losses_scaled(1 / count):
        outputs = [memory(flows[:, i], training=training) for i in range(count)]
    rebuilt = ops.stack([o["reconstruction"] for o in outputs], axis=1)
    return {
        "flow": ops.mean(ops.square(rebuilt - flows), axis=(1, 2, 3, 4)),
        "entropy": sum(o["entropy"] for o in outputs) / count,
        **_errors_of_prediction(networks, inputs, rebuilt, training),
    }


def _errors_of_prediction(
    networks: Networks, inputs: Batch, rebuilt: Any, training: bool | None
) -> dict[str, Any]:
    """Losses of the prediction from what is left of the flows."""
    appearance = inputs["appearance"]
    outputs = networks["vunet"](
        vunet_inputs(appearance, rebuilt), training=training
    )
    target, predicted = appearance[:, -1], outputs["prediction"]
    error = ops.square(predicted - target)
    return {
        "prediction": ops.mean(error, axis=(1, 2, 3)),
        "gradient": summed_gradient_difference(target, predicted),
        "divergence": outputs["divergence"],
    }


def known_flows(motion: Any) -> Any:
    """All flows but the first, which leads from what was before the cube."""
    return motion[:, 1:]


def rebuild_flows(memory: keras.Model, flows: Any, **arguments: Any) -> Any:
    """Runs the auto-encoder on all flows of cubes at once."""
    shape = tuple(flows.shape[1:])
    single = ops.reshape(flows, (-1, *shape[1:]))
    rebuilt = memory(single, **arguments)["reconstruction"]
    return ops.reshape(rebuilt, (-1, *shape))


def vunet_inputs(appearance: Any, flows: Any) -> dict[str, Any]:
    """Puts the frames before the last one, and the flows, into channels."""
    count = flows.shape[1]
    return {
        "frames": _stacked(appearance, count),
        "flows": _stacked(flows, count),
    }


def _stacked(frames: Any, count: int) -> Any:
    return ops.concatenate([frames[:, i] for i in range(count)], axis=-1)
