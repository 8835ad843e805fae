"""Training in stages: what is trained, how long, and on what."""

import dataclasses

import keras


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of the training of a host, with a model of its own.

    The layers of this model are the host's: what the stage trains, the host
    has. Plain `fit` trains it, on batches of the host's inputs and without
    targets; `model.compile(learning_rate=, steps=)` sets the optimiser, losses
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
