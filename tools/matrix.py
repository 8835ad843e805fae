"""Tests the package on the oldest and the newest of what it supports.

`make matrix` runs every combination for which this machine has a Python, each
in an environment of its own in `.build/matrix`. Names of combinations, such as
`make matrix ONLY=python3.13`, choose some.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / ".build" / "matrix"
TESTS = (
    "tests/layers",
    "tests/losses",
    "tests/scoring",
    "tests/data",
    "tests/export/test_onnx.py",
    "tests/export/test_saved_model.py",
    "tests/export/test_tflite.py",
    "tests/runs/test_run.py",
    "tests/test_package.py",
    "tests/test_surgery.py",
    "tests/training/test_resumable.py",
)


@dataclasses.dataclass(frozen=True)
class Combination:
    """A Python, and what is installed beside the newest of all else."""

    python: str
    packages: tuple[str, ...]

    @property
    def name(self) -> str:
        """How it is called in tables, and chosen by."""
        return " ".join((f"python{self.python}", *self.packages))


COMBINATIONS = (
    Combination("3.10", ("tensorflow-cpu==2.16.*", "keras==3.12.*")),
    Combination("3.11", ("tensorflow-cpu==2.18.*", "keras")),
    Combination("3.12", ("tensorflow-cpu==2.19.*", "keras")),
    Combination("3.13", ("tensorflow-cpu", "keras")),
)


def find_python(version: str) -> str | None:
    """Returns an interpreter of a version that works, if there is one."""
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    candidates = [
        shutil.which(f"python{version}"),
        *sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/python"))),
    ]
    for candidate in filter(None, candidates):
        shown = _run([candidate, "--version"])
        if shown.stdout.startswith(f"Python {version}."):
            return candidate
    return None


def check(combination: Combination, python: str) -> str:
    """Installs a combination and runs the tests; returns how they ended."""
    folder = FOLDER / re.sub(r"[^a-z0-9.]+", "-", combination.name)
    binary = folder / "bin" / "python"
    if not binary.exists():
        _run([python, "-m", "venv", str(folder)])
    installed = _run(
        [
            *(str(binary), "-m", "pip", "install", "--quiet"),
            *("--editable", f"{ROOT}[cli,export,io,pretrained,video]"),
            *("pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100"),
            *combination.packages,
        ]
    )
    if installed.returncode:
        return f"cannot be installed: {_last_line(installed)}"
    tested = _run(
        [
            *(str(binary), "-m", "pytest", "-q", "-m", "not slow"),
            *("-p", "no:cacheprovider", "--numprocesses=2"),
            *("--dist=loadfile", *TESTS),
        ]
    )
    (folder / "tests.log").write_text(tested.stdout + tested.stderr)
    state = "passes" if tested.returncode == 0 else "FAILS"
    return f"{state}: {_last_line(tested)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="parts of names")
    only = parser.parse_args().only
    has_failed = False
    for combination in COMBINATIONS:
        if only and not any(text in combination.name for text in only):
            continue
        python, start = find_python(combination.python), time.monotonic()
        if python is None:
            result = f"skipped: no Python {combination.python} here"
        else:
            result = check(combination, python)
        has_failed |= not result.startswith(("passes", "skipped"))
        minutes = (time.monotonic() - start) / 60
        print(f"{combination.name:50} {result} ({minutes:.0f} min)", flush=True)
    sys.exit(has_failed)


def _run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        check=False,
    )


def _last_line(done: "subprocess.CompletedProcess[str]") -> str:
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[-1].strip("= ") if lines else f"exit {done.returncode}"


if __name__ == "__main__":
    main()
