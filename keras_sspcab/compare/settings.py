"""The settings of each host: a file, its tables for hosts, and options."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from keras_sspcab.checks import did_you_mean
from keras_sspcab.compare.grid import OFF, ON
from keras_sspcab.hosts import available_applications
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


class HostSettings:
    """Settings by host, those that a comparison varies left out.

    Stronger ones come later: defaults of the host, sections of the file, tables
    of the host in the file (`[draem.training]`), options for all hosts, options
    for the host (`draem:training.epochs=3`).
    """

    def __init__(
        self,
        models: Sequence[str],
        path: str | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self._hosts = available_applications()
        shared: dict[str, Any] = {}
        tables: dict[str, dict[str, Any]] = {}
        if path is not None:
            shared, tables = _read_file(path, self._hosts)
        for_all, for_host = _read_options(options, models)
        self._layers: dict[str, list[Layer]] = {
            model: [
                (shared, f" in {path}"),
                (tables.get(model, {}), f" in [{model}] of {path}"),
                (nest_settings(for_all), ""),
                (nest_settings(for_host.get(model, {})), ""),
            ]
            for model in {**dict.fromkeys(models), **tables}
        }
        for model, layers in self._layers.items():
            for sections, origin in layers:
                _refuse_varied(sections, origin)
            self.config(model, "", OFF, 0)

    def config(
        self, model: str, data_path: str, block: str, seed: int
    ) -> Config:
        """Returns the configuration of a run."""
        host = self._hosts.get(model)
        place = {OFF: "none", ON: host.comparison_place if host else None}
        varied: dict[str, dict[str, Any]] = {
            "data": {"path": data_path},
            "model": {"name": model, "sspcab": place.get(block, block)},
            "training": {"seed": seed},
        }
        if varied["model"]["sspcab"] is None:
            del varied["model"]["sspcab"]
        try:
            return resolve_layers([*self._layers[model], (varied, "")])
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
    """Returns the sections for all hosts, and those by host."""
    shared: dict[str, Any] = {}
    tables: dict[str, dict[str, Any]] = {}
    for name, value in read_toml(path).items():
        if name in KEYS:
            shared[name] = value
        elif name in hosts and isinstance(value, dict):
            tables[name] = value
        else:
            raise ConfigError(
                f"Unknown table [{name}] in {path}."
                f"{did_you_mean(name, (*KEYS, *hosts), form='[{}]')} "
                "Allowed are: "
                f"{', '.join(KEYS)}, and these for one host, such as "
                f"[{min(hosts)}.training]. The hosts are: "
                f"{', '.join(sorted(hosts))}"
            )
    return shared, tables


def _read_options(
    options: Sequence[str], models: Sequence[str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    for_all: dict[str, Any] = {}
    for_host: dict[str, dict[str, Any]] = {}
    for option in options:
        dotted, value = parse_setting(option)
        host, colon, of_host = dotted.partition(":")
        if not colon:
            for_all[dotted] = value
        elif host in models:
            for_host.setdefault(host, {})[of_host] = value
        else:
            raise ConfigError(
                f"--set {option} is for {host!r}, which is not compared."
                f"{did_you_mean(host, models)} The models are: "
                f"{', '.join(models)}"
            )
    return for_all, for_host


def _refuse_varied(sections: Mapping[str, Any], origin: str) -> None:
    for dotted, option in _VARIED.items():
        name, _, key = dotted.partition(".")
        section = sections.get(name)
        if isinstance(section, Mapping) and key in section:
            raise ConfigError(
                f"`{dotted}`{origin} is what a comparison varies. Received: "
                f"{section[key]!r}. Leave it out, and use {option}"
            )
