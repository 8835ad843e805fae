"""The settings of each host: a file, its tables for hosts, and options."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from keras_sspcab.checks import did_you_mean
from keras_sspcab.compare.grid import OFF, ON
from keras_sspcab.hosts import available_applications
from keras_sspcab.layers import BLOCK_TYPES
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


# Tables of variants of the block in a file: `[blocks.mae] loss = "mae"`.
_BLOCKS = "blocks"


class HostSettings:
    """Settings by host, those that a comparison varies left out.

    Stronger ones come later: defaults of the host, the preset, sections of the
    file, tables of the host in the file (`[draem.training]`), options for all
    hosts, options for the host (`draem:training.epochs=3`). A preset has the
    form of the file.

    Attributes:
        variants: What is other in variants of the block, by their names: the
            types of block besides the first, and the tables `[blocks.NAME]` of
            the file, whose keys are those of `model.sspcab_options`.
    """

    def __init__(
        self,
        models: Sequence[str],
        path: str | None = None,
        options: Sequence[str] = (),
        preset: Mapping[str, Any] | None = None,
    ) -> None:
        self._hosts = available_applications()
        self.variants: dict[str, dict[str, Any]] = {
            kind: {"type": kind} for kind in BLOCK_TYPES[1:]
        }
        files = [(preset or {}, "")]
        if path is not None:
            files.append((read_toml(path), f" in {path}"))
        for_all, for_host = _read_options(options, models)
        self._layers: dict[str, list[Layer]] = {m: [] for m in models}
        for values, origin in files:
            shared, tables, variants = _take_apart(values, origin, self._hosts)
            self.variants |= variants
            # Also of hosts that are not compared: they must be right.
            for model in tables:
                self._layers.setdefault(model, [])
            for model, layers in self._layers.items():
                own = f" in [{model}]{origin.replace(' in ', ' of ')}"
                layers += [(shared, origin), (tables.get(model, {}), own)]
        for model, layers in self._layers.items():
            layers.append((nest_settings(for_all), ""))
            layers.append((nest_settings(for_host.get(model, {})), ""))
        for model, layers in self._layers.items():
            for sections, origin in layers:
                _refuse_varied(sections, origin)
            self.config(model, "", OFF, 0)

    def config(
        self, model: str, data_path: str, block: str, seed: int
    ) -> Config:
        """Returns the configuration of a run.

        Of a block that is not `"off"`, a first part that names a variant is
        one, and all else are places.
        """
        varied: dict[str, dict[str, Any]] = {
            "data": {"path": data_path},
            "model": {"name": model, **self._place(model, block)},
            "training": {"seed": seed},
        }
        try:
            return resolve_layers([*self._layers[model], (varied, "")])
        except ConfigError as error:
            raise ConfigError(f"Settings of {model}: {error}") from error

    def _place(self, model: str, block: str) -> dict[str, Any]:
        if block == OFF:
            return {"sspcab": "none"}
        variant, at, places = block.rpartition("@")
        if not at and block in self.variants:
            variant, places = block, ON
        if variant and variant not in self.variants:
            raise ConfigError(
                f"There is no variant {variant!r} of the block."
                f"{did_you_mean(variant, self.variants)} Known are: "
                f"{', '.join(self.variants)}. Others are tables such as "
                f"[{_BLOCKS}.{variant}] in a file. Received: --sspcab {block}"
            )
        settings: dict[str, Any] = {"sspcab": places.split("+")}
        if places == ON:
            host = self._hosts.get(model)
            own = host.comparison_place if host else None
            settings = {} if own is None else {"sspcab": own}
        elif "+" not in places:
            settings = {"sspcab": places}
        if variant:
            settings["sspcab_options"] = self.variants[variant]
        return settings

    def variants_in(self, blocks: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Returns the variants that some of the blocks are."""
        names = [block.partition("@")[0] for block in blocks]
        return {n: self.variants[n] for n in names if n in self.variants}

    def changed(self, model: str) -> dict[str, Any]:
        """Returns the settings that are not the host's defaults, by key."""
        defaults = load_config(None, {"model.name": model})
        config = self.config(model, "", ON, 0)
        return {
            key: value
            for key, (_, value) in differences(defaults, config).items()
            if key not in (*_VARIED, "objects.folder")
            and not key.startswith("tracking.")
        }


_Tables = dict[str, dict[str, Any]]


def _take_apart(
    values: Mapping[str, Any], origin: str, hosts: Collection[str]
) -> tuple[dict[str, Any], _Tables, _Tables]:
    """Returns sections for all hosts, those by host, and variants."""
    shared: dict[str, Any] = {}
    tables: _Tables = {}
    variants: _Tables = {}
    for name, value in values.items():
        if name == _BLOCKS:
            variants = _check_variants(value, origin)
        elif name in KEYS:
            shared[name] = value
        elif name in hosts and isinstance(value, dict):
            tables[name] = value
        else:
            raise ConfigError(
                f"Unknown table [{name}]{origin}."
                f"{did_you_mean(name, (*KEYS, *hosts), form='[{}]')} "
                "Allowed are: "
                f"{', '.join(KEYS)}, and these for one host, such as "
                f"[{min(hosts)}.training], or [{_BLOCKS}.NAME] for a variant "
                f"of the block. The hosts are: {', '.join(sorted(hosts))}"
            )
    return shared, tables, variants


def _check_variants(tables: Any, origin: str) -> _Tables:
    if not isinstance(tables, dict):
        tables = {"": tables}
    for name, options in tables.items():
        if (
            not isinstance(options, dict)
            or name in ("", OFF, ON, "none")
            # It is the name of a folder, too.
            or set(name) & set("@+,/\\")
        ):
            raise ConfigError(
                f"A variant of the block{origin} is a table such as "
                f'[{_BLOCKS}.mae] with keys such as loss = "mae". Its name is '
                f"not {OFF}, {ON} or none, and has no @, +, comma or slash. "
                f"Received: {name or _BLOCKS} = {options!r}"
            )
    return tables


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
