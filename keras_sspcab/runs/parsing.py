"""Reading and writing configurations: TOML files and `section.key=value`."""

import difflib
import functools
import inspect
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tomli_w
from pydantic import ValidationError, create_model

from keras_sspcab.runs import files
from keras_sspcab.runs.config import (
    Config,
    ConfigError,
    EvaluationConfig,
    ModelConfig,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: The keys that stand in each section, besides those of the host.
KEYS: dict[str, set[str]] = {
    name: set(type(section).model_fields) for name, section in Config()
}

# Keys in the files of older versions, and what they are called now.
_OLD_KEYS = {"normalisation": "normalization"}

# Arguments of hosts that follow from other settings.
_NO_SETTINGS = {"input_shape", "calibration", "name", "self"}

# How "`section.key` must be ..." goes on, by Pydantic's type of error.
_RULES = {
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_type": "an integer",
    "less_than": "less than {lt:.10g}",
    "less_than_equal": "at most {le:g}",
    "string_too_short": "a name or path",
    "string_type": "a string",
    "value_error": "{error}",
}


#: Settings by section and key, and where they come from: `"in screws.toml"`.
Layer = tuple[Mapping[str, Any], str]


def load_config(
    path: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    is_complete: bool = False,
) -> Config:
    """Reads a configuration; what is not given takes the host's default.

    Args:
        path: A TOML file, or None.
        overrides: Values by `"section.key"`, stronger than the file.
        is_complete: Whether `write_config` wrote the file, with all defaults.
            If it indeed names all settings, Keras is not imported.

    Returns:
        The configuration.

    Raises:
        ConfigError: If the file is missing or no TOML, or if sections, keys or
            values are unknown or wrong. The message has a line for each, with
            the key, where it stands and what is allowed.

    Example:
    >>> config = load_config(None, {"model.name": "draem", "data.stride": 2})
    >>> config.data.stride, config.training.epochs
    (2, 100)
    """
    layers: list[Layer] = []
    if path is not None:
        layers.append((read_toml(path), f"in {path}"))
    layers.append((nest_settings(overrides or {}), "on the command line"))
    return resolve_layers(layers, is_complete)


def parse_setting(text: str) -> tuple[str, Any]:
    """Reads `section.key=value`, the value as in TOML or a bare word.

    Args:
        text: Such as `"model.smoothing=5"` or `"model.pooling=mean"`.

    Returns:
        The dotted key and the value.

    Raises:
        ConfigError: If there is no `=`.

    Example:
    >>> parse_setting("data.image_size=[64, 48]")
    ('data.image_size', [64, 48])
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
    """Returns the configuration as TOML, every key written out.

    Example:
    >>> "flip = false" in dump_config(Config())
    True
    """
    return tomli_w.dumps(config.to_dict())


def write_config(path: str, config: Config) -> None:
    """Writes the configuration as a TOML file, all of it or nothing.

    Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_config(f"{folder}/c.toml", Config())
    ...     load_config(f"{folder}/c.toml", is_complete=True) == Config()
    True
    """
    files.write_text(path, dump_config(config))


def differences(before: Config, after: Config) -> dict[str, tuple[Any, Any]]:
    """Returns the settings that differ, by `"section.key"`.

    Example:
    >>> old = Config()
    >>> data = old.data.model_copy(update={"stride": 2})
    >>> differences(old, old.model_copy(update={"data": data}))
    {'data.stride': (1, 2)}
    """
    old, new = before.to_dict(), after.to_dict()
    return {
        f"{name}.{key}": (old[name].get(key), new[name].get(key))
        for name in KEYS
        for key in {**old[name], **new[name]}
        if old[name].get(key) != new[name].get(key)
    }


def read_toml(path: str) -> dict[str, Any]:
    """Reads a TOML file, or raises a ConfigError that names it."""
    if not os.path.isfile(path):
        raise ConfigError(
            f"There is no configuration file at {path!r}. Give a TOML file "
            f"with the sections {', '.join(f'[{name}]' for name in KEYS)}"
        )
    with open(path, "rb") as file:
        try:
            return tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is no valid TOML: {error}") from error


def nest_settings(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the sections of settings by `"section.key"`.

    In [model] a key can name a table inside: `model.sspcab_options.loss`.
    """
    sections: dict[str, dict[str, Any]] = {}
    for dotted, value in settings.items():
        name, _, key = dotted.partition(".")
        if not key:
            raise ConfigError(
                "A setting has the form section.key=value. "
                f"Received: {dotted}={value!r}"
            )
        if name == "model":
            *tables, key = key.split(".")
            for table in reversed(tables):
                key, value = table, {key: value}
        _merge(sections.setdefault(name, {}), {key: value})
    return sections


def resolve_layers(
    layers: Sequence[Layer], is_complete: bool = False
) -> Config:
    """Returns the configuration that results from settings of several places.

    Args:
        layers: The settings, the stronger ones later. Tables inside of [model]
            are merged.
        is_complete: See `load_config`.

    Raises:
        ConfigError: If sections, keys or values are unknown or wrong.
    """
    sections: dict[str, Any] = {name: {} for name in KEYS}
    origins: dict[tuple[str, ...], str] = {}
    problems: list[str] = []
    for given, origin in layers:
        for name, section in given.items():
            if not isinstance(section, Mapping):
                problems.append(
                    f"`{name}` {origin} must be a section, written [{name}]. "
                    f"Received: {section!r}"
                )
                continue
            section = {_OLD_KEYS.get(k, k): v for k, v in section.items()}
            origins |= {(name, key): origin for key in section}
            origins[name,] = origin
            _merge(sections, {name: section})
    schema = Config
    if not (is_complete and _is_complete(sections)):
        try:
            schema = _add_defaults(sections, origins)
        except ConfigError as error:
            problems.append(str(error))
    sections["model"] = _text_to_none(sections["model"])
    try:
        schema.model_validate(sections)
    except ValidationError as error:
        problems += [_describe(e, schema, origins) for e in error.errors()]
    if problems:
        raise ConfigError("\n".join(problems))
    return Config.model_validate(sections)


def _is_complete(sections: Mapping[str, Any]) -> bool:
    """Whether there is no default to ask the host for."""
    return "name" in sections["model"] and all(
        name == "model" or section.keys() == KEYS.get(name)
        for name, section in sections.items()
    )


def _add_defaults(
    sections: dict[str, Any], origins: dict[tuple[str, ...], str]
) -> type[Config]:
    """Adds the defaults of the host to sections, and returns its schema.

    Raises:
        ConfigError: If there is no such host.
    """
    from keras_sspcab.hosts.registry import available_applications

    hosts = available_applications()
    name = sections["model"].get("name", ModelConfig().name)
    if not isinstance(name, str):
        return Config
    if name not in hosts:
        raise ConfigError(
            f"`model.name` {origins['model', 'name']} is wrong. There is no "
            f"model named {name!r}.{_suggestion(name, hosts)} Choose one of: "
            f"{', '.join(sorted(hosts))}"
        )
    host: Any = hosts[name]
    for section, defaults in host.default_settings.items():
        for key in defaults.keys() - sections[section].keys():
            sections[section][key] = defaults[key]
            origins[section, key] = f"(the default of {name})"
    evaluation, options = sections["evaluation"], host.evaluation_options
    # Older versions wrote it for every host.
    is_old = "update_memory" in evaluation.keys() - options.keys()
    if is_old and evaluation["update_memory"] is False:
        del evaluation["update_memory"]
    sections["evaluation"] = {**options, **evaluation}
    return _schema_of(host)


@functools.cache
def _schema_of(host: Any) -> type[Config]:
    """Returns a class of configurations with the settings of one host alone."""
    arguments = {*inspect.signature(host).parameters} - _NO_SETTINGS
    return _with_fields(
        Config,
        model=_with_fields(ModelConfig, **dict.fromkeys(arguments)),
        evaluation=_with_fields(EvaluationConfig, **host.evaluation_options),
    )


def _with_fields(section: Any, **fields: Any) -> Any:
    """Returns a subclass that has these fields besides, and no others.

    Args:
        section: The class.
        **fields: Their defaults, of the type they must have; None for any; or
            the class of a section.
    """
    kinds: dict[str, Any] = {
        name: (value, value())
        if isinstance(value, type)
        else (Any if value is None else type(value), value)
        for name, value in fields.items()
    }
    return create_model(
        section.__name__,
        __base__=section,
        __cls_kwargs__=dict[str, Any](extra="forbid"),
        **kinds,
    )


def _describe(
    error: Any, schema: type[Config], origins: Mapping[tuple[str, ...], str]
) -> str:
    """Words a problem that Pydantic reports for readers of settings."""
    section, *keys = place = tuple(map(str, error["loc"]))
    origin, value = origins.get(place[:2], ""), error["input"]
    if error["type"] == "extra_forbidden" and not keys:
        return (
            f"Unknown section [{section}] {origin}."
            f"{_suggestion(section, KEYS, '[{}]')} "
            f"Allowed are: {', '.join(KEYS)}"
        )
    subject = f"`{'.'.join(place)}` {origin}"
    if error["type"] == "extra_forbidden":
        kind: Any = schema.model_fields[section].annotation
        allowed = sorted(kind.model_fields)
        return (
            f"Unknown key {subject}.{_suggestion(keys[0], allowed)} Allowed in "
            f"[{section}] are: {', '.join(allowed)}"
        )
    context = error.get("ctx", {})
    if error["type"] == "literal_error":
        allowed = re.findall(r"'(\w+)'", context["expected"])
        return (
            f"{subject} cannot be {value!r}.{_suggestion(value, allowed)} "
            f"Allowed are: {', '.join(allowed)}"
        )
    rule = _RULES[error["type"]].format(**context)
    return f"{subject} must be {rule}. Received: {value!r}"


def _suggestion(word: Any, allowed: Iterable[str], form: str = "`{}`") -> str:
    close = difflib.get_close_matches(str(word), allowed, 1)
    return f" Did you mean {form.format(close[0])}?" if close else ""


def _merge(target: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Adds values to a dictionary; tables in it are merged."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            table = target.get(key)
            value = _merge(table if isinstance(table, dict) else {}, value)
        target[key] = value
    return target


def _text_to_none(value: Any) -> Any:
    if isinstance(value, str) and value.lower() == "none":
        return None
    if isinstance(value, dict):
        return {key: _text_to_none(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_text_to_none(part) for part in value]
    return value
