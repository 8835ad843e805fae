"""Reading and writing configurations: TOML files and `section.key=value`."""

import inspect
import json
import os
import types
from collections.abc import Mapping, Sequence
from typing import Any, Union, get_args, get_origin

import tomli_w
from pydantic import PydanticUserError, TypeAdapter, ValidationError

from keras_sspcab import files
from keras_sspcab.checks import did_you_mean
from keras_sspcab.runs.config import (
    Config,
    ConfigError,
    ModelConfig,
    replace_values,
)
from keras_sspcab.toml import tomllib

#: The keys that stand in each section, besides those of the host.
KEYS: dict[str, set[str]] = {
    name: set(type(section).model_fields) for name, section in Config()
}

# Keys in the files of older versions, and what they are called now.
_OLD_KEYS = {"normalisation": "normalization"}

# What readers of settings call types, of Python and of JSON schemas.
_TYPES = {
    "NoneType": '"none"',
    "Sequence": "a list",
    **dict.fromkeys(("bool", "boolean"), "true or false"),
    "dict": "a table",
    **dict.fromkeys(("float", "number"), "a number"),
    **dict.fromkeys(("int", "integer"), "an integer"),
    **dict.fromkeys(("str", "string"), "a text"),
    "tuple": "a list",
}
# How JSON schemas call limits.
_LIMITS = {
    "minimum": "at least {:g}",
    "exclusiveMinimum": "above {:g}",
    "maximum": "at most {:.10g}",
    "exclusiveMaximum": "below {:.10g}",
    "minLength": "not empty",
}

#: Settings by section and key, and the file they come from, as it follows their
#: names: `" in screws.toml"`; empty for arguments.
Layer = tuple[Mapping[str, Any], str]

# By section or section and key, what follows the name of a setting.
_Origins = dict[tuple[str, ...], str]


def load_config(
    path: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    is_complete: bool = False,
) -> Config:
    """Returns the settings of a TOML file and stronger ones by `"section.key"`.

    What is not given takes the host's default. Files that `write_config` wrote
    are complete; where all settings are there, Keras is not imported. The
    ConfigError has a line for each wrong key and value.
    """
    layers: list[Layer] = []
    if path is not None:
        layers.append((read_toml(path), f" in {path}"))
    layers.append((nest_settings(overrides or {}), ""))
    return resolve_layers(layers, is_complete)


def parse_setting(text: str) -> tuple[str, Any]:
    """Reads `section.key=value`, the value as in TOML or a bare word."""
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


def write_config(path: str, config: Config) -> None:
    """Writes the configuration as a TOML file, every key written out."""
    files.write_text(path, tomli_w.dumps(config.to_dict()))


def differences(before: Config, after: Config) -> dict[str, tuple[Any, Any]]:
    """Returns the settings that differ, by `"section.key"`."""
    old, new = before.to_dict(), after.to_dict()
    return {
        f"{name}.{key}": (old[name].get(key), new[name].get(key))
        for name in KEYS
        for key in {**old[name], **new[name]}
        if old[name].get(key) != new[name].get(key)
    }


#: Settings that may differ between two runs with the same results.
CHANGE_NO_RESULT = frozenset(
    {
        "data.path",
        "data.cache",
        "objects.folder",
        "training.checkpoint_every_steps",
        "training.checkpoint_every_seconds",
    }
)

_FREE_SETTINGS = CHANGE_NO_RESULT | {"data.on_error", "training.epochs"}
_FREE_SECTIONS = ("calibration", "evaluation", "tracking")


def is_free_setting(name: str) -> bool:
    """Whether a setting may change between the start of a run and its end."""
    return name in _FREE_SETTINGS or name.partition(".")[0] in _FREE_SECTIONS


def read_toml(path: str) -> dict[str, Any]:
    """Reads a TOML file, or raises a ConfigError that names it."""
    if not os.path.isfile(path):
        raise ConfigError(
            f"There is no configuration file at {path!r}. Give a TOML file "
            f"with the sections {', '.join(f'[{name}]' for name in KEYS)}"
        )
    # Some editors begin files with a mark.
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            return tomllib.loads(file.read())
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
    """Returns the settings of several places, of which later ones are stronger.

    Tables inside of [model] are merged. See `load_config`.
    """
    sections: dict[str, Any] = {name: {} for name in KEYS}
    origins: _Origins = {}
    problems: list[str] = []
    for given, origin in layers:
        for name, section in given.items():
            if not isinstance(section, Mapping):
                problems.append(
                    f"`{name}`{origin} must be a section, written [{name}]. "
                    f"Received: {section!r}"
                )
                continue
            section = {_OLD_KEYS.get(k, k): v for k, v in section.items()}
            origins |= {(name, key): origin for key in section}
            origins[name,] = origin
            _merge(sections, {name: section})
    sections["model"] = replace_values(sections["model"], _text_to_none)
    if not (is_complete and _is_complete(sections)):
        problems += _apply_host(sections, origins)
        sections["model"] = replace_values(sections["model"], _text_to_none)
    try:
        config = Config.model_validate(sections)
    except ValidationError as error:
        problems += [_describe(e, origins) for e in error.errors()]
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def _is_complete(sections: Mapping[str, Any]) -> bool:
    """Whether there is no default to ask the host for."""
    return "name" in sections["model"] and all(
        # Older versions wrote none of these, which have no default of a host.
        name in ("model", "tracking", "inspection")
        or section.keys() == KEYS.get(name)
        for name, section in sections.items()
    )


def _apply_host(sections: dict[str, Any], origins: _Origins) -> list[str]:
    """Adds the defaults of the host; returns what it does not know."""
    from keras_sspcab.hosts.registry import get_application

    name = sections["model"].get("name", ModelConfig().name)
    if not isinstance(name, str):
        return []
    try:
        host: Any = get_application(name)
    except ValueError as error:
        return [f"`model.name`{origins['model', 'name']} is wrong. {error}"]
    if sections["inspection"].get("tile"):
        # Not that of the host, which looks at tiles.
        sections["data"].setdefault("image_size", 0)
    for section, defaults in host.default_settings.items():
        for key in defaults.keys() - sections[section].keys():
            sections[section][key] = defaults[key]
            origins[section, key] = f" (the default of {name})"
    evaluation, options = sections["evaluation"], host.evaluation_options
    # Older versions wrote it for every host.
    is_old = "update_memory" in evaluation.keys() - options.keys()
    if is_old and evaluation["update_memory"] is False:
        del evaluation["update_memory"]
    evaluation = sections["evaluation"] = {**options, **evaluation}
    kinds = {
        "model": {k: a.annotation for k, a in arguments_of(host).items()},
        "evaluation": {key: type(default) for key, default in options.items()},
    }
    problems = []
    for section, own in kinds.items():
        for key in sections[section].keys() - KEYS[section]:
            value = sections[section][key]
            if key not in own:
                allowed = KEYS[section] | own.keys()
                problems.append(_unknown_key(section, key, origins, allowed))
            elif not _is_of(value, own[key]):
                problems.append(
                    f"`{section}.{key}`{origins.get((section, key), '')} must "
                    f"be {describe_type(own[key])}. Received: {value!r}"
                )
    return problems


def _is_of(value: Any, annotation: Any) -> bool:
    """Whether a value is of a type; what cannot be told may be."""
    try:
        adapter = TypeAdapter(annotation)
        # As in files: a list may stand for a tuple, but a text for no number.
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError:
        return False
    except (PydanticUserError, TypeError):  # types or values of Python
        return True
    return True


def describe_type(annotation: Any) -> str:
    """Words a type for readers of settings; empty for any."""
    is_union = get_origin(annotation) in (Union, types.UnionType)
    names = [
        getattr(get_origin(part) or part, "__name__", "")
        for part in (get_args(annotation) if is_union else [annotation])
    ]
    return " or ".join(_TYPES[name] for name in names if name in _TYPES)


def describe_field(section: str, key: str) -> str:
    """Words which values a key of a section may have."""
    schema = Config.model_json_schema()["$defs"]
    field = schema[type(getattr(Config(), section)).__name__]["properties"][key]
    if "enum" in field:
        return ", ".join(map(str, field["enum"]))
    limits = [t.format(field[k]) for k, t in _LIMITS.items() if k in field]
    return ", ".join([_TYPES.get(field["type"], field["type"]), *limits])


def arguments_of(host: Any) -> dict[str, inspect.Parameter]:
    """Returns what can be set in [model]: the arguments of a host by name.

    Those that follow from other settings are left out.
    """
    follow = {"input_shape", "calibration", "name", "self"}
    parameters = inspect.signature(host).parameters
    return {name: p for name, p in parameters.items() if name not in follow}


def _describe(error: Any, origins: _Origins) -> str:
    """Words a problem that Pydantic reports for readers of settings."""
    section, *keys = place = tuple(map(str, error["loc"]))
    origin, value = origins.get(place[:2], ""), error["input"]
    if error["type"] == "extra_forbidden":
        if keys:
            return _unknown_key(section, keys[0], origins, KEYS[section])
        return (
            f"Unknown section [{section}]{origin}."
            f"{did_you_mean(section, KEYS, form='[{}]')} "
            f"Allowed are: {', '.join(KEYS)}"
        )
    subject = f"`{'.'.join(place)}`{origin}"
    rule = describe_field(*place)
    if error["type"] == "literal_error":
        return (
            f"{subject} cannot be {value!r}."
            f"{did_you_mean(value, rule.split(', '))} Allowed are: {rule}"
        )
    if error["type"] == "value_error":
        rule = str(error["ctx"]["error"])
    elif error["type"] == "finite_number":
        rule = "a finite number"
    return f"{subject} must be {rule}. Received: {value!r}"


def _unknown_key(
    section: str, key: str, origins: _Origins, allowed: set[str]
) -> str:
    return (
        f"Unknown key `{section}.{key}`{origins.get((section, key), '')}."
        f"{did_you_mean(key, allowed, form='`{}`')} Allowed in [{section}] "
        f"are: {', '.join(sorted(allowed))}. `keras-sspcab settings` explains "
        "them"
    )


def _merge(target: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Adds values to a dictionary; tables in it are merged."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            table = target.get(key)
            value = _merge(table if isinstance(table, dict) else {}, value)
        target[key] = value
    return target


def _text_to_none(value: Any) -> Any:
    return None if str(value).lower() == "none" else value
