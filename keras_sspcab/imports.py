"""Imports that wait: names of packages, and optional dependencies."""

import importlib
import sys
from collections.abc import Callable, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


def lazy_names(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns the `__getattr__` of a package whose names are imported late.

    Args:
        module: Name of the package.
        homes: By public name, the module that defines it.

    Example:
    >>> get = lazy_names("shapes", {"OrderedDict": "collections"})
    >>> get("OrderedDict").__name__
    'OrderedDict'
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return get


def import_optional(module: str, purpose: str, extra: str) -> ModuleType:
    """Imports a dependency that only a part of the package needs.

    Args:
        module: Name of the module, such as `"cv2"`.
        purpose: What needs it, as the beginning of a sentence: `"Optical flow
            needs OpenCV"`.
        extra: The extra of this package that brings it.

    Returns:
        The module.

    Raises:
        ImportError: If it is not installed; the message says how to do that.

    Example:
    >>> import_optional("json", "Metrics need JSON", "cpu").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f'{purpose}. Install it with: pip install "keras-sspcab[{extra}]"'
        ) from error


def run_after_import(module: str, callback: Callable[[], None]) -> None:
    """Calls a function once, as soon as a module has been imported.

    Args:
        module: Name of a top-level module.
        callback: What to call; at once if the module is there already.
    """
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
            spec.loader = _CallingLoader(spec.loader, self)
        return spec

    def finish(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self._callback()


class _CallingLoader(Loader):
    def __init__(self, loader: Loader, finder: _AfterImport) -> None:
        self._loader = loader
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Afterwards the module looks as if nothing had come between.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._finder.finish()
