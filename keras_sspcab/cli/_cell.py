"""The process of a cell of `keras-sspcab compare`: `_cell [--debug] JOB`."""

import signal
import sys


def main() -> int:
    """Runs a cell, and shows what it does as `keras-sspcab train` would."""
    try:
        from keras_sspcab.cli._backend import import_backend
        from keras_sspcab.cli._console import options, warnings_shown

        options.debug = "--debug" in sys.argv
        import_backend()
        from keras_sspcab.cli._progress import ConsoleProgress
        from keras_sspcab.compare import cell

        with warnings_shown():
            return cell.main(sys.argv[-1], ConsoleProgress(), options.debug)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
