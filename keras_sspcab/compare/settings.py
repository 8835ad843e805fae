"""The settings of each host: a file, its tables for hosts, and options."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from keras_sspcab.compare.grid import OFF, ON
from keras_sspcab.hosts import get_application
from keras_sspcab.runs import Config, ConfigError
from keras_sspcab.runs.parsing import (
    KEYS,
    Layer,
    differences,
    load_config,
    nest_settings,
    parse_setting,
    read_toml,
    resolve_layers,
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
        shared: list[Layer] = []
        tables: dict[str, Layer] = {}
        if path is not None:
            sections, tables = _read_file(path, hosts)
            shared.append((sections, f"in {path}"))
        for_all, for_host = _read_options(options, models)
        self._layers = {
            model: [
                *shared,
                *([tables[model]] if model in tables else ()),
                for_all,
                for_host.get(model, ({}, "")),
            ]
            for model in models
        }
        for layer in (
            *shared,
            *tables.values(),
            for_all,
            *for_host.values(),
        ):
            _check_not_varied(layer)
        for model in models:
            self.config(model, "", OFF, 0)
        for host in tables.keys() - {*models}:
            resolve_layers([tables[host], _fixed(model={"name": host})])

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
        options = {"name": model}
        if block != ON:
            options["sspcab"] = "none" if block == OFF else block
        elif place := get_application(model).comparison_place:
            options["sspcab"] = place
        fixed = _fixed(
            data={"path": data_path}, model=options, training={"seed": seed}
        )
        try:
            return resolve_layers([*self._layers[model], fixed])
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


def _fixed(**sections: Any) -> Layer:
    return sections, "of the comparison"


def _read_file(
    path: str, hosts: Collection[str]
) -> tuple[dict[str, Any], dict[str, Layer]]:
    """Returns the sections for all hosts, and settings by host."""
    shared: dict[str, Any] = {}
    tables: dict[str, Layer] = {}
    for name, value in read_toml(path).items():
        if name in KEYS:
            shared[name] = value
        elif name in hosts and isinstance(value, dict):
            tables[name] = value, f"in [{name}] of {path}"
        else:
            raise ConfigError(
                f"Unknown table [{name}] in {path}. Allowed are: "
                f"{', '.join(KEYS)}, and these for one host, such as "
                f"[{min(hosts)}.training]. The hosts are: "
                f"{', '.join(sorted(hosts))}"
            )
    return shared, tables


def _read_options(
    options: Sequence[str], models: Sequence[str]
) -> tuple[Layer, dict[str, Layer]]:
    """Returns the settings for all hosts, and those by host."""
    by_host: dict[str, dict[str, Any]] = {"": {}}
    for option in options:
        key, value = parse_setting(option)
        host, colon, rest = key.partition(":")
        if not colon:
            by_host[""][key] = value
        elif host in models:
            by_host.setdefault(host, {})[rest] = value
        else:
            raise ConfigError(
                f"--set {option} is for {host!r}, which is not compared. "
                f"The models are: {', '.join(models)}"
            )
    layers: dict[str, Layer] = {
        host: (nest_settings(settings), "on the command line")
        for host, settings in by_host.items()
    }
    return layers.pop(""), layers


def _check_not_varied(layer: Layer) -> None:
    sections, origin = layer
    for key, option in _VARIED.items():
        section, _, name = key.partition(".")
        values = sections.get(section, {})
        if isinstance(values, Mapping) and name in values:
            raise ConfigError(
                f"`{key}` {origin} is what a comparison varies. "
                f"Received: {values[name]!r}. Leave it out, and use {option}"
            )
