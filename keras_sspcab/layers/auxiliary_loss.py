"""The loss term of a block: switched off for exports, tracked in `fit`."""

import contextlib
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

_local = threading.local()


@contextlib.contextmanager
def auxiliary_losses_disabled() -> Iterator[None]:
    """Keeps blocks from adding their loss term inside a `with` block.

    A graph traced in this context (an export, say) holds no trace of the loss.
    It holds for the current thread.
    """
    previous = getattr(_local, "disabled", False)
    _local.disabled = True
    try:
        yield
    finally:
        _local.disabled = previous


def auxiliary_losses_enabled() -> bool:
    """Whether blocks called now add their loss term."""
    return not getattr(_local, "disabled", False)


@contextlib.contextmanager
def auxiliary_losses_scaled(factor: float) -> Iterator[None]:
    """Multiplies the loss terms that blocks add inside a `with` block.

    For a part of a model that runs several times in one pass: with one over
    that number the mean of its terms counts, not their sum. It holds for the
    current thread, and within another such block on top of that.

    Args:
        factor: What the terms are multiplied by.
    """
    previous = auxiliary_loss_scale()
    _local.scale = previous * factor
    try:
        yield
    finally:
        _local.scale = previous


def auxiliary_loss_scale() -> float:
    """What the terms of blocks called now are multiplied by."""
    return getattr(_local, "scale", 1.0)


class AuxiliaryLossMetric(keras.metrics.Metric):
    """Mean over the samples seen of the loss term that a layer has added.

    Keras gives a layer no place to update a metric that is right on every
    backend: `call` also runs in `predict` and in exports, and on JAX it cannot
    reach the state of metrics at all. So the layer only notes its term, and
    `result`, which Keras calls at the end of each training and evaluation step
    inside the same trace, folds it in. Nothing remains in other graphs.

    Keras merges the results of metrics by name. The blocks of one model all
    report the sum over the model's blocks, under one name, so that the value
    shown is the part of `loss` that is due to them.

    One thing slips through where nothing is traced (the torch backend, or
    `run_eagerly=True`): a prediction made between the last batch of an epoch
    and its end, by a callback say, counts like one more batch.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.total = self.add_variable(
            shape=(), initializer="zeros", name="total"
        )
        self.count = self.add_variable(
            shape=(), initializer="zeros", name="count"
        )

    def note(self, term: Any, num_samples: Any, same_pass: bool) -> None:
        """Remembers a term until the end of the step.

        Args:
            term: Scalar float32 tensor, as added to the losses.
            num_samples: Size of the batch.
            same_pass: Whether the layer has added a term before in the same
                forward pass (a layer that is used twice).
        """
        # Detached, the value is also valid outside of the gradient's trace.
        term = ops.stop_gradient(term)
        notes = _notes()
        if same_pass and self in notes:
            term = ops.add(notes[self][0], term)
        notes[self] = (term, num_samples)

    def update_state(self, term: Any, num_samples: Any) -> None:
        """Adds the mean of a batch, weighted by the size of the batch."""
        weight = ops.cast(num_samples, "float32")
        self.total.assign(self.total + ops.cast(term, "float32") * weight)
        self.count.assign(self.count + weight)

    def result(self) -> Any:
        """Returns the mean since the last reset, summed over the model."""
        means = [metric.mean() for metric in _current_group(self)]
        return sum(means[1:], means[0])

    def mean(self) -> Any:
        """Returns the mean since the last reset, of this block alone."""
        self._fold_in()
        return ops.divide_no_nan(self.total, self.count)

    def reset_state(self) -> None:
        """Starts a new mean."""
        _local.sweep_is_open = False
        _notes().pop(self, None)
        super().reset_state()

    def _fold_in(self) -> None:
        term, num_samples = _notes().pop(self, (None, None))
        if term is not None and _belongs_here(term, self.total.value):
            self.update_state(term, num_samples)


class BlockLossMetric(keras.metrics.Metric):
    """What one of several blocks contributes to their sum.

    Args:
        source: The metric of the block, which holds the state.
        name: Name of the metric.
    """

    def __init__(self, source: AuxiliaryLossMetric, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        # Not the metric: Keras would reset and save its state once more.
        self._mean = source.mean

    def update_state(self) -> None:
        """Does nothing: the source is updated."""

    def result(self) -> Any:
        """Returns the mean of the source since its last reset."""
        return self._mean()


def enter_sweep(metric: AuxiliaryLossMetric) -> AuxiliaryLossMetric:
    """Notes that a model is collecting its metrics, this one among them.

    `model.metrics` visits all layers in one go and then reads the results in
    the same order: what is visited between two readings is one model.
    """
    if not getattr(_local, "sweep_is_open", False):
        _local.sweep_is_open = True
        _local.sweep = []
    if not any(reference() is metric for reference in _local.sweep):
        _local.sweep.append(weakref.ref(metric))
    return metric


def _current_group(metric: AuxiliaryLossMetric) -> list[AuxiliaryLossMetric]:
    visited = [reference() for reference in getattr(_local, "sweep", [])]
    members = [member for member in visited if member is not None]
    if metric not in members:
        members = [metric]
    elif _local.sweep_is_open:
        # Earlier members were visited for another model and never read.
        members = members[members.index(metric) :]
        _local.sweep = [weakref.ref(member) for member in members]
    _local.sweep_is_open = False
    return members


def _notes() -> Any:
    # Per thread, because MirroredStrategy traces each replica in its own.
    if not hasattr(_local, "notes"):
        _local.notes = weakref.WeakKeyDictionary()
    return _local.notes


def _belongs_here(term: Any, state: Any) -> bool:
    """Whether `term` may be used in the trace that is active now.

    A note can outlive its trace when a layer ran in `predict` or in an export,
    which read no metrics.
    """
    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        if tf.executing_eagerly():
            return hasattr(term, "numpy")
        return (
            tf.is_symbolic_tensor(term)
            and term.graph is tf.compat.v1.get_default_graph()
        )
    if backend == "jax":
        import jax

        return isinstance(term, jax.core.Tracer) == isinstance(
            state, jax.core.Tracer
        )
    return True
