"""What can be set in a run: keys, defaults, allowed values, and meanings."""

import inspect
import re
from typing import Any, NamedTuple

from keras_sspcab.hosts.registry import get_application
from keras_sspcab.runs.config import Config, ModelConfig
from keras_sspcab.runs.parsing import (
    arguments_of,
    describe_field,
    describe_type,
    load_config,
)

# An entry of a docstring, under "Args:" and the like.
_ENTRY = re.compile(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", re.MULTILINE)


class Setting(NamedTuple):
    """A key of the configuration of a run.

    Attributes:
        key: As it is written: `"training.epochs"`.
        default: The value that the model has by default.
        values: Which values are allowed, in words.
        meaning: What it is, in a sentence.

    Example:
    >>> Setting("data.flip", False, "true or false", "Whether ...").key
    'data.flip'
    """

    key: str
    default: Any
    values: str
    meaning: str


def list_settings(model: str | None = None) -> list[Setting]:
    """Returns all that can be set in a run, with the defaults of a model.

    Args:
        model: A name in `keras_sspcab.hosts.available_applications()`. Defaults
            to that of `ModelConfig`, `"multiscale_padim"`.

    Example:
    >>> settings = {setting.key: setting for setting in list_settings("mnad")}
    >>> settings["training.batch_size"].values
    'an integer, at least 1'
    >>> settings["data.flip"].meaning
    'Whether training images are flipped at random, left to right.'
    >>> settings["model.num_items"].default
    10
    """
    host: Any = get_application(model or ModelConfig().name)
    config = load_config(None, {"model.name": model} if model else {})
    meanings = describe_entries(host)
    defaults = config.to_dict()
    settings = []
    for name, section in Config():
        only_for = {"objects": "objects", "inspection": "image"}
        if only_for.get(name, host.kind) != host.kind:
            continue
        texts = {**meanings, **describe_entries(type(section))}
        keys = type(section).model_fields
        allowed = {key: describe_field(name, key) for key in keys}
        if name == "model":
            for key, argument in arguments_of(host).items():
                allowed[key] = describe_type(
                    argument.annotation
                ) or describe_type(type(argument.default))
                defaults[name].setdefault(key, argument.default)
        elif name == "evaluation":
            of_images = {"masks": allowed.pop("masks")}
            allowed = of_images if host.kind == "image" else allowed
            for key, value in host.evaluation_options.items():
                allowed[key] = describe_type(type(value))
        for key, values in allowed.items():
            default = defaults[name][key]
            settings.append(
                Setting(
                    f"{name}.{key}",
                    "none" if default is None else default,
                    values,
                    texts.get(key, ""),
                )
            )
    return settings


def describe_entries(cls: type) -> dict[str, str]:
    """Returns the first sentences of what docstrings of a class explain.

    By name, those of base classes included.
    """
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        doc = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        for name, text in _ENTRY.findall(doc):
            sentence, *_ = re.split(r"(?<=\.)\s+(?=[A-Z])", text, maxsplit=1)
            texts[name] = " ".join(sentence.split())
    return texts
