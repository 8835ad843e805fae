"""Packages that only some formats need."""

import importlib.util


def require(*modules: str, extra: str = "export") -> None:
    """Raises an ImportError that says how to install what is missing."""
    missing = [
        name for name in modules if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ImportError(
            f"This needs {', '.join(missing)}. "
            f'Install it with: pip install "keras-sspcab[{extra}]"'
        )
