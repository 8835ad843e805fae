"""Imports that wait: names of packages, and optional dependencies."""

import contextlib
import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

#: What the command line and run folders need besides Keras.
CLI_MODULES = (
    *("jinja2", "markupsafe", "matplotlib", "PIL", "pydantic", "rich"),
    *("scipy", "skimage", "sklearn", "tensorboard", "threadpoolctl"),
    *("tomli_w", "typer"),
)

# What no extra can bring: it requires `tensorflow` by that name, which would be
# a second one beside tensorflow-cpu.
_COMMANDS = {"tensorflow_serving": "--no-deps tensorflow-serving-api"}


def lazy_names(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns the `__getattr__` of a package whose names are imported late.

    `homes` gives the module that defines each public name.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return get


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Returns the versions of those packages that are installed."""
    installed = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed


def import_optional(module: str, purpose: str, extra: str) -> ModuleType:
    """Imports a module that an extra of this package brings.

    The error says how to install it, after `purpose`, such as `"Optical flow
    needs OpenCV"`.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:
        require_modules([module.partition(".")[0]], purpose, extra)
        name = getattr(error, "name", None)
        if isinstance(error, ModuleNotFoundError) and name == module:
            raise _missing(module, purpose, extra) from error
        raise ImportError(
            f"{purpose}. It is installed, but cannot be imported: {error}"
        ) from error


def require_modules(modules: Iterable[str], purpose: str, extra: str) -> None:
    """Raises the error of `import_optional` if a top-level module is missing.

    It imports none: what takes long can be refused before it begins. `{}` in
    the purpose stands for the module.
    """
    for module in modules:
        # Tests and others mark modules as missing by None.
        is_known = sys.modules.get(module, module) is not None
        if not is_known or not (module in sys.modules or find_spec(module)):
            raise _missing(module, purpose, extra)


def _missing(module: str, purpose: str, extra: str) -> ImportError:
    command = _COMMANDS.get(module, f'"keras-sspcab[{extra}]"')
    return ImportError(
        f"{purpose.format(module)}. Install it with: pip install {command}"
    )


def run_after_import(module: str, callback: Callable[[], None]) -> None:
    """Calls a function once, as soon as a top-level module is imported."""
    if module in sys.modules:
        callback()
    else:
        sys.meta_path.insert(0, _AfterImport(module, callback))


class _AfterImport(MetaPathFinder):
    def __init__(self, module: str, callback: Callable[[], None]) -> None:
        self._module = module
        self._callback = callback
        self._is_searching = False

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> ModuleSpec | None:
        if name != self._module or self._is_searching:
            return None
        self._is_searching = True
        try:
            spec = find_spec(name)
        finally:
            self._is_searching = False
        # Others may only look whether the module exists: nothing is over yet.
        if spec is not None and spec.loader is not None:
            self._follow(spec.loader)
        return spec

    def _follow(self, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            # Afterwards the loader is as if nothing had come between.
            del loader.exec_module
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                self._callback()

        loader.exec_module = exec_module
