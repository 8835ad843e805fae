"""A switch to operations that every runtime supports, for exports."""

import contextlib
import threading
from collections.abc import Iterator

_local = threading.local()


@contextlib.contextmanager
def plain_operations() -> Iterator[None]:
    """Makes layers use plain operations only, inside a `with` block.

    Some of these have no gradient on CPUs: it is for graphs that nothing is
    trained in. It holds for the current thread.

    Example:
    >>> with plain_operations():
    ...     outputs = SSPCABLayer()(np.ones((1, 8, 8, 4)))
    """
    previous = uses_plain_operations()
    _local.plain = True
    try:
        yield
    finally:
        _local.plain = previous


def uses_plain_operations() -> bool:
    """Whether layers use plain operations only, in this thread."""
    return getattr(_local, "plain", False)
