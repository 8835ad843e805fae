"""`keras-sspcab`, also as `python -m keras_sspcab.cli`."""

import os


def main() -> None:
    """Runs the command line; the entry point of `keras-sspcab`."""
    # Keras reads it when it is imported.
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    from keras_sspcab.cli import app

    app(prog_name="keras-sspcab")


if __name__ == "__main__":
    main()
