"""Training in stages: what is trained, how long, and on what."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of the training of a host, with a model of its own.

    The layers of this model are the host's: what the stage trains, the host
    has. Plain `fit` trains it, on batches of the host's inputs and without
    targets; `model.compile(learning_rate=, steps=)` sets the optimizer, losses
    and schedule of the host's paper.

    Attributes:
        name: Name of the stage, for files and messages.
        model: What is trained.
        epochs: The paper's number of epochs.
        batch_size: The paper's number of objects a batch.
        needs_pseudo_abnormal: Whether batches must hold pseudo-abnormal
            objects as well; see `keras_sspcab.data.pseudo_abnormal`.
    """

    name: str
    model: keras.Model
    epochs: int
    batch_size: int
    needs_pseudo_abnormal: bool = False


class StageModel(keras.Model):
    """A part of the training: its losses, and the layers that they train.

    The layers are those of the detector. A stage is trained by `fit` on batches
    of objects as dicts, without targets, and reports each loss by name.

    A stage overrides `needs`, `loss_weights_by_name` and `terms`, and sets
    `decay`.

    Args:
        trained: The layers and models that the stage trains.
        fixed: Those that it uses as they are. They are in its checkpoints.
        name: Name of the stage.
        rate: Learning rate to begin with.
        **kwargs: Passed on.
    """

    needs_pseudo_abnormal: ClassVar[bool] = False

    #: After which share of the steps the rate falls, and to which part.
    decay: ClassVar[tuple[float, float]]

    def __init__(
        self,
        trained: Sequence[keras.layers.Layer],
        fixed: Sequence[keras.layers.Layer] = (),
        *,
        name: str,
        rate: float,
        **kwargs: Any,
    ) -> None:
        # Inputs are not rounded: the layers cast what they get.
        super().__init__(name=name, autocast=False, **kwargs)
        self._rate = rate
        self.trained_parts = list(trained)
        self.fixed_parts = list(fixed)
        # All layers are.
        self.built = True

    # === What a stage decides ===

    def needs(self) -> list[str]:
        """What must be in a batch."""
        raise NotImplementedError

    def loss_weights_by_name(self) -> dict[str, float]:
        """The losses and their weights."""
        raise NotImplementedError

    def terms(
        self, inputs: dict[str, Any], training: bool | None = None
    ) -> dict[str, Any]:
        """Returns the losses, each `(batch,)`.

        Args:
            inputs: A batch.
            training: Whether parts that are trained run as in training. Pass it
                on where a part before is called with `training=False`: Keras
                hands that on to all that are called later and say nothing.
        """
        raise NotImplementedError

    # === What they share ===

    def call(
        self, inputs: dict[str, Any], training: bool | None = None
    ) -> dict[str, Any]:
        """Returns the losses by name, each float32 `(batch, 1)`."""
        self._require(inputs)
        return {
            name: ops.cast(term, "float32")[:, None]
            for name, term in self.terms(inputs, training).items()
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
            optimizer: As in `keras.Model.compile`. None takes Adam, with the
                rate of the host's paper.
            learning_rate: The rate it begins with; None takes the host's.
            steps: Steps of the stage, over which the rate falls; None leaves it
                constant.
            **kwargs: Passed on.
        """
        if optimizer is None:
            rate: Any = learning_rate or self._rate
            if steps is not None:
                share, factor = self.decay
                rate = keras.optimizers.schedules.PiecewiseConstantDecay(
                    [int(steps * share)], [rate, rate * factor]
                )
            optimizer = keras.optimizers.Adam(rate)
        elif learning_rate is not None or steps is not None:
            raise ValueError(
                "`learning_rate` and `steps` are for the stage's own optimizer."
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
        names = self.needs()
        if isinstance(inputs, dict) and not set(names) - set(inputs):
            return
        hint = ""
        if self.needs_pseudo_abnormal:
            hint = (
                ". keras_sspcab.data.pseudo_abnormal.add_pseudo_abnormal adds "
                "pseudo-abnormal crops"
            )
        received = sorted(inputs) if isinstance(inputs, dict) else type(inputs)
        raise ValueError(
            f"The stage {self.name} needs batches with the keys {names}. "
            f"Received: {received}{hint}"
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
        """The metrics without those of fixed blocks, which add no loss."""
        of_blocks = {
            id(metric)
            for part in self.fixed_parts
            for layer in part._flatten_layers()
            for metric in layer.metrics
        }
        return [m for m in super().metrics if id(m) not in of_blocks]


class Untracked:
    """Holds what Keras would take for more layers of a model.

    Args:
        content: What is held.
    """

    def __init__(self, content: Any) -> None:
        self.content = content
