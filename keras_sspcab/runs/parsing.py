"""Reading and writing configurations: TOML files and `section.key=value`."""

import difflib
import inspect
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tomli_w
from pydantic import TypeAdapter, ValidationError

from keras_sspcab.runs import files
from keras_sspcab.runs.config import Config, ConfigError, ModelConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: The keys that stand in each section, besides those of the host.
KEYS: dict[str, tuple[str, ...]] = {
    name: tuple(type(section).model_fields) for name, section in Config()
}

# Keys in the files of older versions, and what they are called now.
_OLD_KEYS = {("evaluation", "normalisation"): "normalization"}

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


#: Settings by section and key, and where they stand: `"in screws.toml"`.
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
    """Returns the configuration of settings from several places.

    Args:
        layers: The settings, the stronger ones later. Tables inside of [model]
            are merged.
        is_complete: See `load_config`.

    Raises:
        ConfigError: If sections, keys or values are unknown or wrong.
    """
    draft = _Draft()
    for sections, origin in layers:
        for name, section in sections.items():
            draft.add(name, section, origin)
    if not (is_complete and draft.is_complete):
        draft.ask_host()
    return draft.validate()


class _Draft:
    """Settings, where they stand, and what is wrong with them."""

    def __init__(self) -> None:
        self._sections: dict[str, dict[str, Any]] = {name: {} for name in KEYS}
        self._origins: dict[tuple[str, str], str] = {}
        self._problems: list[str] = []
        # None: the host is not known, so that no key can be judged.
        self._allowed: dict[str, set[str] | None] = {
            name: None if name == "model" else {*keys}
            for name, keys in KEYS.items()
        }

    @property
    def is_complete(self) -> bool:
        """Whether there is no default to ask the host for."""
        return "name" in self._sections["model"] and all(
            name == "model" or self._sections[name].keys() == set(keys)
            for name, keys in KEYS.items()
        )

    def add(self, name: str, section: Any, origin: str) -> None:
        """Adds the settings of a section, stronger than those before."""
        if name not in KEYS:
            self._problems.append(
                f"Unknown section [{name}] {origin}."
                f"{_suggestion(name, KEYS, '[{}]')} "
                f"Allowed are: {', '.join(KEYS)}"
            )
        elif not isinstance(section, Mapping):
            self._problems.append(
                f"`{name}` {origin} must be a section, written [{name}]. "
                f"Received: {section!r}"
            )
        else:
            section = {
                _OLD_KEYS.get((name, key), key): value
                for key, value in section.items()
            }
            _merge(self._sections[name], section)
            self._origins |= {(name, key): origin for key in section}

    def ask_host(self) -> None:
        """Adds the defaults of the host, and checks the keys."""
        from keras_sspcab.hosts.registry import available_applications

        hosts = available_applications()
        name = self._sections["model"].get("name", ModelConfig().name)
        if not isinstance(name, str) or name not in hosts:
            self._allowed["evaluation"] = None
            if isinstance(name, str):
                self._say(
                    ("model", "name"),
                    f"is wrong. There is no model named {name!r}."
                    f"{_suggestion(name, hosts)} Choose one of: "
                    f"{', '.join(sorted(hosts))}",
                )
            return
        host = hosts[name]
        options = getattr(host, "evaluation_options", {})
        evaluation = self._sections["evaluation"]
        # Older versions wrote it for every host.
        if "update_memory" not in options and not evaluation.get(
            "update_memory"
        ):
            evaluation.pop("update_memory", None)
        arguments = {*inspect.signature(host).parameters} - _NO_SETTINGS
        self._allowed["model"] = {"name", *arguments}
        self._allowed["evaluation"] = {*KEYS["evaluation"], *options}
        self._add_defaults(host.default_settings, f"(the default of {name})")
        self._add_defaults({"evaluation": options}, "")
        for key, default in options.items():
            try:
                TypeAdapter(type(default)).validate_python(
                    evaluation[key], strict=True
                )
            except ValidationError as error:
                self._translate(error, ("evaluation", key))

    def validate(self) -> Config:
        """Returns the configuration, or raises a ConfigError of all errors."""
        self._drop_unknown_keys()
        sections = {**self._sections}
        sections["model"] = _text_to_none(sections["model"])
        try:
            config = Config.model_validate(sections)
        except ValidationError as error:
            self._translate(error)
        if self._problems:
            raise ConfigError("\n".join(self._problems))
        return config

    def _add_defaults(
        self, defaults: Mapping[str, Mapping[str, Any]], origin: str
    ) -> None:
        for name, section in defaults.items():
            for key in section.keys() - self._sections[name].keys():
                self._sections[name][key] = section[key]
                self._origins[name, key] = origin

    def _drop_unknown_keys(self) -> None:
        for name, allowed in self._allowed.items():
            section = self._sections[name]
            for key in sorted(section.keys() - (allowed or section.keys())):
                del section[key]
                self._problems.append(
                    f"Unknown key `{name}.{key}` {self._origins[name, key]}."
                    f"{_suggestion(key, allowed)} Allowed in [{name}] are: "
                    f"{', '.join(sorted(allowed))}"
                )

    def _translate(
        self, error: ValidationError, section: tuple[str, ...] = ()
    ) -> None:
        """Says what Pydantic found, in terms of a configuration file."""
        for problem in error.errors():
            place = (*section, *map(str, problem["loc"]))
            context = problem.get("ctx", {})
            value = repr(problem["input"])
            if problem["type"] == "literal_error":
                allowed = re.findall(r"'(\w+)'", context["expected"])
                self._say(
                    place,
                    f"cannot be {value}.{_suggestion(value, allowed)} "
                    f"Allowed are: {', '.join(allowed)}",
                )
            else:
                rule = _RULES[problem["type"]].format(**context)
                self._say(place, f"must be {rule}. Received: {value}")

    def _say(self, place: tuple[str, ...], problem: str) -> None:
        origin = self._origins.get((place[0], place[1]), "")
        self._problems.append(f"`{'.'.join(place)}` {origin} {problem}")


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
