"""Runs mypy on the package as it is installed.

`applications` and `export` are mapped into the package by setuptools, which a
type checker does not know about: it is shown a tree of links instead.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAGE = ROOT / ".build" / "types"


def main() -> int:
    package = STAGE / "keras_sspcab"
    shutil.rmtree(STAGE, ignore_errors=True)
    package.mkdir(parents=True)
    for item in (ROOT / "keras_sspcab").iterdir():
        if item.name != "__pycache__":
            (package / item.name).symlink_to(item)
    for name in ("applications", "export"):
        (package / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "mypy", "-p", "keras_sspcab"]
    config = ["--config-file", str(ROOT / "pyproject.toml")]
    return subprocess.run(command + config, cwd=STAGE, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
