"""The settings of each host: a file, its tables for hosts, and options."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from keras_sspcab.compare.grid import OFF, ON
from keras_sspcab.hosts import get_application
from keras_sspcab.runs import Config, ConfigError, parsing
from keras_sspcab.runs.parsing import (
    SECTIONS,
    differences,
    load_config,
    parse_setting,
)

# What a comparison varies itself, and by which option.
_VARIED = {
    "data.path": "--data",
    "model.name": "--models",
    "model.sspcab": "--sspcab",
    "training.seed": "--seeds",
}


class Settings:
    """Settings by host, those that a comparison varies left out.

    Stronger ones come later: defaults of the host, sections of the file, tables
    of the host in the file, options for all hosts, options for the host.

    Args:
        models: The hosts that are compared.
        hosts: All hosts there are; a file may have tables for any of them.
        path: A TOML file, or None. Besides the sections of a run, such as
            `[training]`, it may have them for one host, `[draem.training]`.
        options: `"section.key=value"`, or for one host
            `"host:section.key=value"`.

    Raises:
        ConfigError: If the file is missing or no TOML, or if a host, section,
            key or value is unknown, of the wrong type, or varied by the
            comparison.
    """

    def __init__(
        self,
        models: Sequence[str],
        hosts: Collection[str],
        path: str | None = None,
        options: Sequence[str] = (),
    ) -> None:
        shared: dict[str, Any] = {}
        tables: dict[str, dict[str, Any]] = {}
        if path is not None:
            shared, tables = _read_file(path, hosts)
        for_all, for_host = _read_options(options, models)
        self._settings = {
            model: {
                **shared,
                **tables.get(model, {}),
                **for_all,
                **for_host.get(model, {}),
            }
            for model in models
        }
        for model in models:
            self.config(model, "", OFF, 0)

    def config(
        self, model: str, data_path: str, block: str, seed: int
    ) -> Config:
        """Returns the configuration of a run.

        Args:
            model: One of the hosts.
            data_path: Folder of the images.
            block: `"off"`, `"on"` (the host's own place) or a place.
            seed: Seed of the training.

        Raises:
            ConfigError: If a value is out of its range.
        """
        overrides = {
            **self._settings[model],
            "data.path": data_path,
            "model.name": model,
            "training.seed": seed,
        }
        if block != ON:
            overrides["model.sspcab"] = "none" if block == OFF else block
        elif place := get_application(model).comparison_place:
            overrides["model.sspcab"] = place
        try:
            return load_config(None, overrides)
        except ConfigError as error:
            raise ConfigError(f"Settings of {model}: {error}") from error

    def changed(self, model: str) -> dict[str, Any]:
        """Returns the settings that are not the host's defaults, by key."""
        defaults = load_config(None, {"model.name": model})
        config = self.config(model, "", ON, 0)
        return {
            key: value
            for key, (_, value) in differences(defaults, config).items()
            if key not in _VARIED
        }


def _read_file(
    path: str, hosts: Collection[str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Returns the settings for all hosts, and those by host."""
    shared: dict[str, Any] = {}
    tables: dict[str, dict[str, Any]] = {}
    for name, value in parsing.read_toml(path).items():
        if name in SECTIONS:
            shared |= _read_section(name, value, f"in {path}")
        elif name in hosts and isinstance(value, dict):
            tables[name] = {}
            for section, values in value.items():
                origin = f"in [{name}.{section}] of {path}"
                tables[name] |= _read_section(section, values, origin)
        else:
            raise ConfigError(
                f"Unknown table [{name}] in {path}. Allowed are: "
                f"{', '.join(SECTIONS)}, and these for one host, such as "
                f"[{min(hosts)}.training]. The hosts are: "
                f"{', '.join(sorted(hosts))}"
            )
    return shared, tables


def _read_section(name: str, section: Any, origin: str) -> dict[str, Any]:
    parsing.check_section(name, section, origin)
    settings: dict[str, Any] = {}
    for key, value in section.items():
        _check(name, key, value, origin)
        settings |= _flatten(f"{name}.{key}", value)
    return settings


def _read_options(
    options: Sequence[str], models: Sequence[str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    origin = "on the command line"
    for_all: dict[str, Any] = {}
    for_host: dict[str, dict[str, Any]] = {}
    for option in options:
        dotted, value = parse_setting(option)
        host, colon, dotted_alone = dotted.partition(":")
        target = for_all
        if colon:
            if host not in models:
                raise ConfigError(
                    f"--set {option} is for {host!r}, which is not compared. "
                    f"The models are: {', '.join(models)}"
                )
            dotted, target = dotted_alone, for_host.setdefault(host, {})
        section, _, key = dotted.partition(".")
        parsing.check_section(section, {}, origin)
        if not key:
            raise ConfigError(
                "A setting has the form section.key=value. "
                f"Received: --set {option}"
            )
        _check(section, key, value, origin)
        target |= _flatten(dotted, value)
    return for_all, for_host


def _check(section: str, key: str, value: Any, origin: str) -> None:
    dotted = f"{section}.{key}"
    if dotted in _VARIED:
        raise ConfigError(
            f"`{dotted}` {origin} is what a comparison varies. "
            f"Received: {value!r}. Leave it out, and use {_VARIED[dotted]}"
        )
    parsing.check_key(section, key, value, origin)


def _flatten(key: str, value: Any) -> dict[str, Any]:
    """Splits tables, so that one setting in them can be changed alone."""
    if not isinstance(value, Mapping) or not value:
        return {key: value}
    settings: dict[str, Any] = {}
    for name, part in value.items():
        settings |= _flatten(f"{key}.{name}", part)
    return settings
