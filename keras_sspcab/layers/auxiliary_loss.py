"""The loss term of a block: what it is, where it is added and reported."""

import contextlib
import functools
import inspect
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

# Keras has no public name for the call that is going on.
from keras.src.backend.common import global_state

# Nor for what it does to losses under distribution strategies.
from keras.src.losses.loss import unscale_loss_for_distribution

LossFunction = Callable[[Any, Any], Any]

# What Keras keeps in a loss, but leaves out of its config.
_NOT_IN_CONFIGS = {
    keras.losses.Huber: "delta",
    keras.losses.CosineSimilarity: "axis",
}

_local = threading.local()


@ops.custom_gradient
def _mean_squared_error(target: Any, prediction: Any) -> tuple[Any, Any]:
    # Derived automatically, the gradient passes over the maps three more times,
    # which is a tenth of the block's training step.
    error = prediction - target

    def gradient(*arguments: Any, upstream: Any = None) -> tuple[Any, Any]:
        if upstream is None:
            (upstream,) = arguments
        size = ops.cast(ops.prod(ops.shape(error)), error.dtype)
        slope = error * (2.0 * upstream / size)
        return -slope, slope

    return _mean_square(error), gradient


def _mean_square(x: Any) -> Any:
    if keras.config.backend() != "tensorflow":
        return ops.mean(ops.square(x))
    import tensorflow as tf

    # It sums squares without a map of them.
    return 2.0 * tf.nn.l2_loss(x) / tf.cast(tf.size(x), x.dtype)


def _mean_absolute_error(target: Any, prediction: Any) -> Any:
    return ops.mean(ops.absolute(prediction - target))


def _huber(target: Any, prediction: Any, delta: float) -> Any:
    """Half the squared error up to delta, a straight line beyond."""
    error = ops.absolute(prediction - target)
    line = delta * (error - 0.5 * delta)
    return ops.mean(ops.where(error < delta, 0.5 * ops.square(error), line))


_BY_NAME: dict[str, LossFunction] = {
    "mse": _mean_squared_error,
    "mae": _mean_absolute_error,
}


def resolve_loss(identifier: Any, delta: float = 1.0) -> LossFunction | None:
    """Returns the function of target and prediction that gives a scalar loss.

    The identifier is a name, a `keras.losses.Loss`, the config of one, or None;
    `delta` is the threshold of `"huber"`.
    """
    if identifier is None:
        return None
    huber: LossFunction = functools.partial(_huber, delta=delta)
    by_name = {**_BY_NAME, "huber": huber}
    if isinstance(identifier, str) and identifier.lower() in by_name:
        return by_name[identifier.lower()]
    if isinstance(identifier, dict):
        identifier = keras.losses.deserialize(identifier)
    if isinstance(identifier, keras.losses.Loss):
        loss = identifier
        is_mean = loss.reduction not in ("sum", "none", None)

        def reduced(target: Any, prediction: Any) -> Any:
            # A loss with reduction=None gives one value a sample.
            value = ops.mean(loss(target, prediction))
            # Keras divides means by the number of replicas, and what is added
            # to the losses of a model once more.
            return unscale_loss_for_distribution(value) if is_mean else value

        return reduced
    raise ValueError(
        f"The `loss` argument must be one of {list(by_name)}, a "
        f"keras.losses.Loss, or None. Received: loss={identifier!r}"
    )


def serialize_loss(identifier: Any) -> Any:
    """Returns what `resolve_loss` needs to build the same loss again."""
    if not isinstance(identifier, keras.losses.Loss):
        return identifier
    serialized = keras.losses.serialize(identifier)
    known = inspect.signature(type(identifier)).parameters
    for kind, option in _NOT_IN_CONFIGS.items():
        # A subclass may have settled it.
        if isinstance(identifier, kind) and option in known:
            serialized["config"][option] = identifier._fn_kwargs[option]
    return serialized


@contextlib.contextmanager
def auxiliary_losses_disabled() -> Iterator[None]:
    """Keeps blocks from adding their loss term inside a `with` block.

    A graph traced in this context (an export, say) holds no trace of the loss.
    It holds for the current thread.

    Example:
    >>> block = SSPCABLayer()
    >>> with auxiliary_losses_disabled():
    ...     outputs = block(np.ones((1, 8, 8, 4)))
    >>> block.losses
    []
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
    current thread; nested factors multiply.

    Example:
    >>> x = np.ones((1, 8, 8, 4), "float32")
    >>> block = SSPCABLayer(kernel_initializer="zeros", loss_weight=1.0)
    >>> with auxiliary_losses_scaled(0.5):
    ...     outputs = block(x)
    >>> float(block.losses[0])
    0.5
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


class BlockLossReport:
    """The metrics of one block: `sspcab_loss`, and its own share of it.

    Keras gives a layer no place to update a metric that is right on every
    backend: `call` also runs in `predict` and in exports, and on JAX it cannot
    reach the state of metrics at all. So the layer only notes its term here,
    with those of the other blocks in the same forward pass. The metrics take
    up what was noted when their results are read, which Keras does at the end
    of each step of training and evaluation, inside the same trace.

    Keras puts the results of all metrics into one dictionary, by name. Each
    block reports the sum over the forward pass under the same name, so that
    the value shown is the part of `loss` that is due to all blocks.

    The report is no attribute that Keras tracks: metrics that belong to a
    layer would end up in files of weights.

    Where nothing is traced (the torch backend, or `run_eagerly=True`), a
    forward pass between the last batch of an epoch and the end of the epoch, by
    a callback say, counts like one more batch.
    """

    def __init__(self, name: str) -> None:
        self.total = NotedMean("sspcab_loss")
        self.own = NotedMean(name)
        self._last_call: Any = None

    def note(self, term: Any, num_samples: Any) -> None:
        """Notes a term that has been added to the losses of the model."""
        call, forward_pass = _current_pass()
        # Detached, the value is also valid outside of the gradient's trace.
        term = ops.stop_gradient(term)
        if self in forward_pass and self._last_call() is call:
            # A layer that is used twice. Keras forgets terms of other calls.
            term = ops.add(forward_pass[self], term)
        # Weakly: the call must be free to end.
        self._last_call = weakref.ref(call)
        forward_pass[self] = term
        self.own.note([term], num_samples)
        self.total.note(forward_pass.values(), num_samples)


class NotedMean(keras.metrics.Metric):
    """Mean over samples of what has been noted, taken up when it is read."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.total = self.add_variable((), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")

    def note(self, terms: Any, num_samples: Any) -> None:
        """Remembers the terms of a batch, which may still become more."""
        _thread_state("notes")[self] = (terms, num_samples)

    def update_state(self, term: Any, num_samples: Any) -> None:
        """Adds the term of a batch, weighted by the size of the batch."""
        weight = ops.cast(num_samples, "float32")
        self.total.assign(self.total + ops.cast(term, "float32") * weight)
        self.count.assign(self.count + weight)

    def result(self) -> Any:
        """Returns the mean since the last reset."""
        terms, num_samples = _thread_state("notes").pop(self, ((), None))
        terms = list(terms)
        if terms and all(_is_usable(t, self.total.value) for t in terms):
            self.update_state(sum(terms[1:], terms[0]), num_samples)
        return ops.divide_no_nan(self.total, self.count)

    def reset_state(self) -> None:
        """Starts a new mean."""
        _thread_state("notes").pop(self, None)
        super().reset_state()


def _thread_state(name: str) -> Any:
    # Per thread, because MirroredStrategy traces each replica in its own.
    if not hasattr(_local, name):
        setattr(_local, name, weakref.WeakKeyDictionary())
    return getattr(_local, name)


def _current_pass() -> tuple[Any, dict[BlockLossReport, Any]]:
    """Returns the call of the outermost layer, and the terms of the pass."""
    call = global_state.get_global_attribute("current_call_ctx")
    scope = global_state.get_global_attribute("stateless_scope")
    if call is None:
        # `block.call(x)`, without Keras around it, is a pass of its own.
        call = _Call()
    # In training on JAX no layer is called around the others; there, a pass is
    # what happens in one stateless scope.
    key = call if scope is None else scope
    return call, _thread_state("passes").setdefault(key, {})


class _Call:
    """Stands for a call that Keras does not know of."""


def _is_usable(term: Any, state: Any) -> bool:
    """Whether `term` belongs to the trace that is active now.

    A note outlives its trace where no metric was read: in `predict`, or in an
    export.
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

        is_traced, reads_trace = (
            isinstance(x, jax.core.Tracer) for x in (term, state)
        )
        return is_traced == reads_trace
    return True
