"""What is wrong with a configuration."""

from typing import Any


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key."""


def require(condition: bool, key: str, rule: str, value: Any) -> None:
    """Raises a ConfigError unless a condition holds.

    Args:
        condition: What must hold.
        key: Name of the setting, with its section.
        rule: What it must be, in words.
        value: What it is.
    """
    if not condition:
        raise ConfigError(f"`{key}` must be {rule}. Received: {value!r}")
