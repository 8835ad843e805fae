"""`keras-sspcab`, also as `python -m keras_sspcab.cli`."""

import os
import sys

from keras_sspcab.imports import CLI_MODULES, require_modules


def main() -> None:
    """Runs the command line; the entry point of `keras-sspcab`."""
    try:
        require_modules(CLI_MODULES, "The command line needs {}", "cli")
    except ImportError as error:
        sys.exit(f"Error: {error}")
    # Keras reads it when it is imported.
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    from keras_sspcab.cli import app

    app(prog_name="keras-sspcab")


if __name__ == "__main__":
    main()
