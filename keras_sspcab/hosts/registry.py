"""The hosts by name: those of this package, and those of others."""

import importlib
import importlib.metadata
from collections.abc import Callable
from typing import TypeVar

from keras_sspcab.checks import did_you_mean
from keras_sspcab.hosts.base import AnomalyModel

#: Entry points of this group name modules that register hosts.
GROUP = "keras_sspcab.applications"

Host = TypeVar("Host", bound=type[AnomalyModel])

hosts: dict[str, type[AnomalyModel]] = {}


def register_application(name: str) -> Callable[[Host], Host]:
    """Makes a host known by name, to `get_application` and all commands.

    Packages of others name their modules in the entry-point group
    `keras_sspcab.applications`; they are imported when a host is looked for.

    Args:
        name: The name, in lower case with underscores.

    Returns:
        A decorator for a subclass of `AnomalyModel`.

    Raises:
        ValueError: If another class has that name.

    Example:
    >>> from keras_sspcab.applications import AutoEncoder
    >>> from keras_sspcab.hosts import registry
    >>> @register_application("my_autoencoder")
    ... class MyAutoEncoder(AutoEncoder):
    ...     pass
    >>> registry.hosts.pop("my_autoencoder").__name__
    'MyAutoEncoder'
    """

    def register(host: Host) -> Host:
        known = hosts.get(name, host)
        # Modules may be reloaded.
        if (known.__module__, known.__qualname__) != (
            host.__module__,
            host.__qualname__,
        ):
            raise ValueError(
                f"There is a host named {name!r} already: "
                f"{known.__module__}.{known.__qualname__}. Choose another name"
            )
        hosts[name] = host
        return host

    return register


def available_applications() -> dict[str, type[AnomalyModel]]:
    """Returns all hosts by name, those of this package first.

    Example:
    >>> "mnad" in available_applications()
    True
    """
    importlib.import_module("keras_sspcab.applications")
    for point in importlib.metadata.entry_points(group=GROUP):
        importlib.import_module(point.value)
    return dict(hosts)


def get_application(name: str) -> type[AnomalyModel]:
    """Returns the class of a host, by its name in `available_applications()`.

    Raises:
        ValueError: If there is no host of that name.

    Example:
    >>> get_application("mnad").kind
    'video'
    """
    known = available_applications()
    if name not in known:
        raise ValueError(
            f"There is no model named {name!r}."
            f"{did_you_mean(name, known)} "
            f"Choose one of: {', '.join(sorted(known))}"
        )
    return known[name]
