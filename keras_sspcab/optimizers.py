"""Optimizers and schedules of published trainings."""

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_sspcab")
class PyTorchAdam(keras.optimizers.Adam):
    """Adam with the epsilon of PyTorch.

    PyTorch adds epsilon to the root of the corrected second moment, Keras to
    that of the uncorrected one. What Keras calls 1e-8 therefore acts like
    3.2e-7 in PyTorch's first step and 1.3e-8 in the thousandth.

    Args:
        learning_rate: As in `keras.optimizers.Adam`, like all arguments.
        epsilon: Defaults to 1e-8, as in PyTorch.

    References:
    - [Kingma & Ba, ICLR 2015](https://arxiv.org/abs/1412.6980), Algorithm 1,
      which is PyTorch's; Keras has the form at the end of its section 2.

    Example:
    >>> weight = keras.Variable([1.0])
    >>> PyTorchAdam(0.1).apply([ops.array([1e-8])], [weight])
    >>> float(weight[0])  # Half of the rate: the gradient equals epsilon.
    0.949999988079071
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        name: str = "adam",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate, beta_1, beta_2, epsilon, name=name, **kwargs
        )

    def update_step(
        self, gradient: Any, variable: Any, learning_rate: Any
    ) -> None:
        dtype = variable.dtype
        gradient = ops.cast(gradient, dtype)
        step = ops.cast(self.iterations + 1, dtype)
        # As 1 - beta ** step, which loses digits in float32.
        correction_1, correction_2 = (
            -ops.expm1(step * (math.log(beta) if beta else -math.inf))
            for beta in (self.beta_1, self.beta_2)
        )
        index = self._get_variable_index(variable)
        mean, square = self._momentums[index], self._velocities[index]
        self.assign_add(mean, (gradient - mean) * (1 - self.beta_1))
        self.assign_add(
            square, (ops.square(gradient) - square) * (1 - self.beta_2)
        )
        if self.amsgrad:
            highest = self._velocity_hats[index]
            self.assign(highest, ops.maximum(highest, square))
            square = highest
        scale = ops.sqrt(square / correction_2) + self.epsilon
        rate = ops.cast(learning_rate, dtype) / correction_1
        self.assign_sub(variable, rate * mean / scale)


@keras.saving.register_keras_serializable(package="keras_sspcab")
class EpochCosineDecay(keras.optimizers.schedules.CosineDecay):
    """Cosine decay to 0 that changes the rate once an epoch.

    As PyTorch's `CosineAnnealingLR` does when it is stepped after each epoch:
    the rate of epoch `e`, from 0, of `E` is `rate * (1 + cos(pi e / E)) / 2`.

    Args:
        initial_learning_rate: The rate of the first epoch.
        steps_per_epoch: Steps of an epoch.
        epochs: Epochs of the training.

    Example:
    >>> schedule = EpochCosineDecay(1.0, steps_per_epoch=10, epochs=2)
    >>> [round(float(schedule(step)), 4) for step in (0, 9, 10, 19)]
    [1.0, 1.0, 0.5, 0.5]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        steps_per_epoch: int,
        epochs: int,
        name: str = "epoch_cosine",
    ) -> None:
        super().__init__(initial_learning_rate, epochs, name=name)
        self.steps_per_epoch = steps_per_epoch

    def __call__(self, step: Any) -> Any:
        return super().__call__(ops.floor_divide(step, self.steps_per_epoch))

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "steps_per_epoch": self.steps_per_epoch,
            "epochs": self.decay_steps,
            "name": self.name,
        }
