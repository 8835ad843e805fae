"""Starts the program in a process of its own."""

import subprocess
import sys


def command(*arguments):
    return [sys.executable, "-m", "keras_sspcab.cli", *map(str, arguments)]


def start(*arguments, **options):
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, **options
    )
