"""Reading and writing configurations: TOML files and `section.key=value`."""

import dataclasses
import os
import sys
import typing
from collections.abc import Mapping
from typing import Any

import tomli_w

from keras_sspcab.runs import files
from keras_sspcab.runs.config import Config
from keras_sspcab.runs.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SECTIONS: dict[str, Any] = {
    field.name: type(field.default) for field in dataclasses.fields(Config)
}


def load_config(
    path: str | None = None, overrides: Mapping[str, Any] | None = None
) -> Config:
    """Reads a configuration; what is not said takes its default.

    Args:
        path: A TOML file, or None.
        overrides: Values by `"section.key"`, stronger than the file.

    Returns:
        The configuration.

    Raises:
        ConfigError: If the file is missing or no TOML, or a section, key or
            value is unknown or of the wrong type. The message names the key,
            where it stands, and what is allowed.
    """
    sections = {} if path is None else read_toml(path)
    origin = f"in {path}"
    for name, section in sections.items():
        check_section(name, section, origin)
        for key, value in section.items():
            check_key(name, key, value, origin)
    for dotted, value in (overrides or {}).items():
        name, _, key = dotted.partition(".")
        check_section(name, {}, "on the command line")
        if not key:
            raise ConfigError(
                f"A setting has the form section.key=value. Received: {dotted}"
            )
        check_key(name, key, value, "on the command line")
        _assign(sections.setdefault(name, {}), key, value)
    return _build(sections, "the configuration" if path is None else path)


def parse_setting(text: str) -> tuple[str, Any]:
    """Reads `section.key=value`, the value as in TOML or a bare word.

    Args:
        text: Such as `"model.smoothing=5"` or `"model.pooling=mean"`.

    Returns:
        The dotted key and the value.

    Raises:
        ConfigError: If there is no `=`.
    """
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key:
        raise ConfigError(
            "A setting has the form section.key=value, such as "
            f"model.smoothing=5. Received: {text!r}"
        )
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def dump_config(config: Config) -> str:
    """Returns the configuration as TOML, every key written out."""
    return tomli_w.dumps(config.to_dict())


def write_config(path: str, config: Config) -> None:
    """Writes the configuration as a TOML file, all of it or nothing."""
    files.write_text(path, dump_config(config))


def differences(before: Config, after: Config) -> dict[str, tuple[Any, Any]]:
    """Returns the settings that differ, by `"section.key"`."""
    old, new = before.to_dict(), after.to_dict()
    return {
        f"{name}.{key}": (old[name].get(key), new[name].get(key))
        for name in SECTIONS
        for key in {**old[name], **new[name]}
        if old[name].get(key) != new[name].get(key)
    }


def read_toml(path: str) -> dict[str, Any]:
    """Reads a TOML file, or raises a ConfigError that names it."""
    if not os.path.isfile(path):
        raise ConfigError(
            f"There is no configuration file at {path!r}. Give a TOML file "
            f"with the sections {', '.join(f'[{name}]' for name in SECTIONS)}"
        )
    with open(path, "rb") as file:
        try:
            return tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is no valid TOML: {error}") from error


def check_section(name: str, section: Any, origin: str) -> None:
    """Raises a ConfigError unless there is such a section."""
    if name not in SECTIONS:
        raise ConfigError(
            f"Unknown section [{name}] {origin}. Allowed are: "
            f"{', '.join(SECTIONS)}"
        )
    if not isinstance(section, dict):
        raise ConfigError(
            f"`{name}` {origin} must be a section, written [{name}]. "
            f"Received: {section!r}"
        )


def _types(section: str) -> dict[str, Any]:
    return typing.get_type_hints(SECTIONS[section])


def check_key(section: str, key: str, value: Any, origin: str) -> None:
    """Raises a ConfigError unless there is such a key, with such a value."""
    dotted, (key, *inner) = f"{section}.{key}", key.split(".")
    if inner and section != "model":
        raise ConfigError(
            f"Unknown key `{dotted}` {origin}. Only [model] has tables inside"
        )
    types = _types(section)
    if section == "model":
        # Everything but the name is an argument of the host, which checks it.
        types = {"name": str} if key == "name" else {key: object}
    if key not in types:
        raise ConfigError(
            f"Unknown key `{section}.{key}` {origin}. Allowed in [{section}] "
            f"are: {', '.join(sorted(types))}"
        )
    if not _has_type(value, types[key]):
        raise ConfigError(
            f"`{section}.{key}` {origin} must be {_describe(types[key])}. "
            f"Received: {value!r}"
        )


def _has_type(value: Any, expected: Any) -> bool:
    if expected is object:
        return True
    if expected == tuple[int, int]:
        pair = [value, value] if _has_type(value, int) else value
        return (
            isinstance(pair, (list, tuple))
            and len(pair) == 2
            and all(_has_type(part, int) for part in pair)
        )
    if isinstance(value, bool):
        return expected is bool
    if expected is float:
        return isinstance(value, (int, float))
    return isinstance(value, expected)


def _describe(expected: Any) -> str:
    return {
        str: "a string",
        int: "an integer",
        float: "a number",
        bool: "true or false",
    }.get(expected, "an integer or a list of two, [height, width]")


def _assign(section: dict[str, Any], key: str, value: Any) -> None:
    """Sets a key, which may name a table inside: `sspcab_options.loss`."""
    *tables, last = key.split(".")
    for table in tables:
        section = section.setdefault(table, {})
        if not isinstance(section, dict):
            raise ConfigError(
                f"`{table}` is no table, so `{key}` cannot be set in it. "
                f"Received: {table}={section!r}"
            )
    section[last] = value


def default_settings(model: str) -> Mapping[str, Mapping[str, Any]]:
    """Returns the settings that suit a host, by section.

    Raises:
        ConfigError: If there is no host of that name.
    """
    from keras_sspcab.hosts import get_application

    try:
        return get_application(model).default_settings
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _build(sections: dict[str, Any], origin: str) -> Config:
    model = sections.get("model", {}).get("name", SECTIONS["model"].name)
    defaults = default_settings(model)
    values: dict[str, dict[str, Any]] = {
        name: {**defaults.get(name, {}), **sections.get(name, {})}
        for name in SECTIONS
    }
    size = values["data"].get("image_size")
    if size is not None:
        values["data"]["image_size"] = (
            (size, size) if isinstance(size, int) else tuple(size)
        )
    for name in SECTIONS:
        for key, expected in _types(name).items():
            if expected is float and key in values[name]:
                values[name][key] = float(values[name][key])
    options = values["model"]
    options.pop("name", None)
    values["model"] = {"name": model, "options": _text_to_none(options)}
    try:
        return Config(
            **{
                name: section(**values[name])
                for name, section in SECTIONS.items()
            }
        )
    except ConfigError as error:
        raise ConfigError(f"{error} (in {origin})") from error


def _text_to_none(value: Any) -> Any:
    if isinstance(value, str) and value.lower() == "none":
        return None
    if isinstance(value, dict):
        return {key: _text_to_none(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_text_to_none(part) for part in value]
    return value
