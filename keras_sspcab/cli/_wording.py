"""Messages of the library, in the words of the command line."""

import re
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from typer.models import OptionInfo

# Arguments and settings by the options that they come from.
_OPTIONS = {"name": "model", "path": "data", "root": "data", "paths": "images"}

_SECTIONS = "data|model|training|objects|calibration|evaluation"


def name_options(
    message: str, command: Callable[..., None], given: Mapping[str, Any]
) -> str:
    """Names options where a message names arguments and settings of Python.

    "The `image_size` argument must" becomes "--image-size must", as does
    "`data.image_size` must" where that option was given, else "--set
    data.image_size must". What stands in a file keeps its name.

    `given` are the values of the command's parameters.
    """
    options = {
        name: (info.param_decls or [f"--{name.replace('_', '-')}"])[0]
        for name, hint in get_type_hints(command, include_extras=True).items()
        for info in getattr(hint, "__metadata__", ())
        if isinstance(info, OptionInfo)
    }

    def of_argument(name: str) -> str | None:
        return options.get(name) or options.get(_OPTIONS.get(name, ""))

    def of_setting(match: re.Match[str]) -> str:
        section, key = match.groups()
        alias = _OPTIONS.get(key)
        name = alias or key
        is_option = section in ("data", "model", "training") and name in options
        if is_option and (alias or given.get(name) is not None):
            return options[name]
        return f"--set {section}.{key}" if "settings" in options else match[0]

    def of_advice(match: re.Match[str]) -> str:
        name, value = match.groups()
        if name == "layout" and "settings" in options:
            return f"--set data.layout={value}"
        option = of_argument(name)
        return match[0] if option is None else f"{option} {value}"

    for pattern, replace in (
        (rf"(?<!key )`({_SECTIONS})\.([\w.]+)`(?! in | \()", of_setting),
        (r"[Tt]he `(\w+)` argument", lambda m: of_argument(m[1]) or m[0]),
        (
            r"(?<=Received: )(\w+)=(?=\S)",
            lambda m: f"{of_argument(m[1])} " if of_argument(m[1]) else m[0],
        ),
        (r'\b(\w+)="(\w+)"', of_advice),
    ):
        message = re.sub(pattern, replace, message)
    return message
