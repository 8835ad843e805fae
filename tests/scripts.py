"""Runs programs in processes of their own."""

import subprocess
import sys
import textwrap


def run_script(script, *arguments, **options):
    """Runs a program; returns what it has printed."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        **options,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()
