"""Training in stages: what is trained, how long, and on what."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_sspcab.hosts.base import check_own_rate
from keras_sspcab.hosts.detector import Untracked

#: From a batch and whether it is trained on, to losses `(batch,)` by name.
Terms = Callable[[Mapping[str, Any], bool | None], dict[str, Any]]


class Stage(keras.Model):
    """A part of the training of a host: what it trains, on which losses.

    The layers are those of the host: what the stage trains, the host has. `fit`
    trains it on batches of objects as dicts, without targets, and reports each
    loss by name.

    Args:
        terms: Function that computes the losses, from a batch and `training`,
            which it must pass on to each part that it calls: once a part was
            called with `training=False`, Keras hands that on to all that are
            called later and say nothing.
        loss_weights: The losses and their weights.
        needs: The keys that a batch must have; those of pseudo-abnormal
            objects, `keras_sspcab.data.pseudo_abnormal`, begin with
            `abnormal_`.
        trained: The layers and models that the stage trains.
        fixed: Those that it uses as they are. They are in its checkpoints.
        name: Name of the stage, for files and messages.
        learning_rate: Rate to begin with.
        decay: After which share of the steps the rate falls, and to which part.
        epochs: The paper's number of epochs.
        batch_size: The paper's number of objects a batch.
        optimizer: Makes the optimizer of a rate. Defaults to Keras' Adam.

    Example:
    >>> from keras_sspcab.applications import HF2VAD
    >>> model = HF2VAD((2, 16, 16, 1), root_width=2, num_slots=4, base_width=2)
    >>> [stage.name for stage in model.training_stages()]
    ['memory', 'prediction', 'joint']
    """

    def __init__(
        self,
        terms: Terms,
        loss_weights: Mapping[str, float],
        needs: Sequence[str],
        trained: Sequence[keras.layers.Layer],
        fixed: Sequence[keras.layers.Layer] = (),
        *,
        name: str,
        learning_rate: float,
        decay: tuple[float, float],
        epochs: int,
        batch_size: int,
        optimizer: Callable[[Any], Any] = keras.optimizers.Adam,
        **kwargs: Any,
    ) -> None:
        # Inputs are not rounded: the layers cast what they get.
        super().__init__(name=name, autocast=False, **kwargs)
        self.epochs = epochs
        self.batch_size = batch_size
        self.needs_pseudo_abnormal = any(
            key.startswith("abnormal_") for key in needs
        )
        self._terms = terms
        self._loss_weights_by_name = Untracked(dict(loss_weights))
        self._needs = tuple(needs)
        self._rate = learning_rate
        self._decay = decay
        self._make_optimizer = optimizer
        self.trained_parts = list(trained)
        self.fixed_parts = list(fixed)
        # All layers are.
        self.built = True

    def call(
        self, inputs: dict[str, Any], training: bool | None = None
    ) -> dict[str, Any]:
        """Returns the losses by name, each float32 `(batch, 1)`."""
        self._check(inputs)
        return {
            name: ops.cast(term, "float32")[:, None]
            for name, term in self._terms(inputs, training).items()
        }

    def compile(
        self,
        optimizer: Any = None,
        *,
        learning_rate: float | None = None,
        steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Configures the stage, by default with the optimizer of the paper."""
        if optimizer is None:
            rate: Any = self._rate if learning_rate is None else learning_rate
            if steps is not None:
                share, factor = self._decay
                rate = keras.optimizers.schedules.PiecewiseConstantDecay(
                    [int(steps * share)], [rate, rate * factor]
                )
            optimizer = self._make_optimizer(rate)
        else:
            check_own_rate(optimizer, learning_rate, steps)
        weights = self._loss_weights_by_name.value
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

    def _check(self, inputs: Any) -> None:
        is_dict = isinstance(inputs, dict)
        if is_dict and set(self._needs) <= set(inputs):
            return
        hint = ""
        if self.needs_pseudo_abnormal:
            hint = (
                ". keras_sspcab.data.pseudo_abnormal.add_pseudo_abnormal adds "
                "pseudo-abnormal crops"
            )
        raise ValueError(
            f"The stage {self.name} needs batches with the keys "
            f"{list(self._needs)}. Received: "
            f"{sorted(inputs) if is_dict else type(inputs).__name__}{hint}"
        )

    # === What is fixed ===

    @property
    def trainable_variables(self) -> list[Any]:
        """The variables of what is trained."""
        return [
            variable
            for part in self.trained_parts
            for variable in part.trainable_variables
        ]

    @property
    def non_trainable_variables(self) -> list[Any]:
        """All others."""
        trained = {id(variable) for variable in self.trainable_variables}
        return [v for v in self.variables if id(v) not in trained]

    trainable_weights = trainable_variables
    non_trainable_weights = non_trainable_variables

    @property
    def metrics(self) -> list[Any]:
        """The metrics without those of fixed blocks, which add no loss."""
        of_blocks = {
            id(metric)
            for part in self.fixed_parts
            for layer in part._flatten_layers()
            for metric in layer.metrics
        }
        return [m for m in super().metrics if id(m) not in of_blocks]
