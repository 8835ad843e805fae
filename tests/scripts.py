"""Python code that tests run in a process of its own."""

import subprocess
import sys
import textwrap


def run_script(script, *arguments, **options):
    """Runs Python code in a new process, and returns what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        **options,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()
