"""Trains and evaluates one cell of a comparison, in a process of its own.

TensorFlow keeps what custom gradients have captured until its process ends: the
graph of each training, its weights and the state of its optimizer. So each
training has its own process, which also gives the memory of a GPU back.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from keras_sspcab.cli._console import options, warnings_shown
from keras_sspcab.compare.conditions import hardware
from keras_sspcab.compare.states import State, state_of
from keras_sspcab.runs import Config, RunFolder, files
from keras_sspcab.runs.parsing import load_config

_INTERRUPTED = 128 + signal.SIGINT

_START = f"""
import sys
try:
    from keras_sspcab.cli._cell import main
    code = main()
except KeyboardInterrupt:
    code = {_INTERRUPTED}
sys.exit(code)
"""


class CellError(RuntimeError):
    """The process of a cell has failed; the message says why."""


class CellInterrupted(KeyboardInterrupt):
    """The process of a cell was stopped by a signal.

    Attributes:
        signal: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"Stopped by signal {number}")
        self.signal = number


def run_cell(run: RunFolder, config: Config) -> None:
    """Trains and evaluates, as far as that has not been done.

    Args:
        run: The folder of the run.
        config: Its configuration.
    """
    from keras_sspcab.cli._evaluation import evaluate_run
    from keras_sspcab.cli._pipeline import train_run

    state = state_of(run)
    if state in (State.NEW, State.BEGUN):
        with _timed(run, "training"):
            train_run(run, config, resume=state is State.BEGUN)
    if state is not State.DONE:
        with _timed(run, "evaluation"):
            evaluate_run(run, config)


@contextlib.contextmanager
def _timed(run: RunFolder, part: str) -> Iterator[None]:
    """Adds up in `run.json` how long a part has taken, and on what."""
    began = time.monotonic()
    try:
        yield
    finally:
        if run.exists:
            seconds = dict(run.record.get("seconds", {}))
            elapsed = time.monotonic() - began
            seconds[part] = round(seconds.get(part, 0.0) + elapsed, 3)
            run.update_record(seconds=seconds, hardware=hardware())


def run_in_own_process(
    run: RunFolder, config: Config, environment: Mapping[str, str]
) -> None:
    """Does what `run_cell` does in a new process, and waits for it.

    Args:
        run: The folder of the run.
        config: Its configuration.
        environment: The variables of the process.

    Raises:
        CellError: If it has failed.
        CellInterrupted: If this process was told to stop. The cell was told as
            well, and has written its state.
    """
    with tempfile.TemporaryDirectory() as folder:
        job = os.path.join(folder, "job.json")
        reason = os.path.join(folder, "reason.txt")
        files.write_json(
            job,
            {
                "run": run.path,
                "config": config.to_dict(),
                "argv": sys.argv[1:],
                "debug": options.debug,
                "reason": reason,
            },
        )
        # A session of its own: Ctrl-C reaches it through this process only.
        process = subprocess.Popen(
            [sys.executable, "-c", _START, job],
            # Nothing is sent: its end says that this process is gone.
            stdin=subprocess.PIPE,
            start_new_session=True,
            env=environment,
        )
        with process, _signals_passed_on(process) as received:
            code = process.wait()
        if received:
            raise CellInterrupted(received[0])
        if code:
            raise CellError(_reason(reason, code))


def _reason(path: str, code: int) -> str:
    if os.path.isfile(path):
        with open(path, encoding="utf-8") as file:
            return file.read()
    if code < 0:
        return (
            f"its process was ended by signal {-code}. Was there too little "
            "memory?"
        )
    return f"its process has ended with code {code}"


@contextlib.contextmanager
def _signals_passed_on(
    process: "subprocess.Popen[bytes]",
) -> Iterator[list[int]]:
    """Sends Ctrl-C and SIGTERM on to a process; yields those received."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def pass_on(number: int, frame: Any) -> None:
        received.append(number)
        process.send_signal(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def main() -> int:
    """Runs the cell of the file in `sys.argv`; returns the exit code."""
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    sys.argv[1:] = job["argv"]
    options.debug = job["debug"]
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    overrides = {
        f"{section}.{key}": value
        for section, values in job["config"].items()
        for key, value in values.items()
    }
    try:
        with warnings_shown():
            run_cell(RunFolder(job["run"]), load_config(None, overrides))
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:
        # Whatever it is, the other cells can still be run.
        if options.debug:
            traceback.print_exc()
        message = getattr(error, "message", None) or str(error)
        files.write_text(
            job["reason"], f"{type(error).__name__}: {message}".strip()
        )
        return 1
    return 0


def _stop_at_end_of_input() -> None:
    """Ends the training in good order when the comparison was killed."""
    # Not through `sys.stdin`, whose lock the interpreter needs at its end.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)
