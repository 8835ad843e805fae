"""Starts the program in a process of its own."""

import subprocess
import sys

# As the script does that pip installs: the name is known before the import.
_START = (
    "import sys; sys.argv[0] = 'keras-sspcab'; "
    "from keras_sspcab.cli import main; main()"
)


def command(*arguments):
    return [sys.executable, "-c", _START, *map(str, arguments)]


def start(*arguments, **options):
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, **options
    )
