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
from collections.abc import Iterator, Mapping, Sequence

from keras_sspcab import files
from keras_sspcab.compare.conditions import hardware
from keras_sspcab.compare.results import CellState, state_of
from keras_sspcab.progress import Progress
from keras_sspcab.runs import Config, RunFolder
from keras_sspcab.runs.folder import evaluated_elsewhere
from keras_sspcab.runs.parsing import resolve_layers
from keras_sspcab.signals import deferred_signals

_INTERRUPTED = 128 + signal.SIGINT
# For the step that is running when the comparison was killed, and to save it.
_SECONDS_TO_STOP = 30.0

#: The module whose process runs a silent cell.
CELL_COMMAND = ("-m", "keras_sspcab.compare.cell")


class CellError(RuntimeError):
    """The process of a cell has failed; the message says why."""


class CellInterrupted(KeyboardInterrupt):
    """A signal has stopped the cell, which has written its state."""

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message or f"Stopped by signal {number}")
        self.signal = number


def run_cell(
    run: RunFolder,
    config: Config,
    progress: Progress | None = None,
    command: Sequence[str] | None = None,
) -> None:
    """Trains and evaluates, as far as that has not been done."""
    from keras_sspcab.runs.evaluation import evaluate_run
    from keras_sspcab.runs.training import train_run

    # Where a comparison was killed, the process of its cell has yet to stop.
    with run.locked(2 * _SECONDS_TO_STOP, command):
        state = state_of(run)
        try:
            if state in (CellState.NEW, CellState.BEGUN):
                with _timed(run, "training"):
                    train_run(run, config, state is CellState.BEGUN, progress)
            if state is not CellState.DONE:
                with _timed(run, "evaluation"):
                    evaluate_run(run, config, progress)
                if root := evaluated_elsewhere(run.record):
                    # The same data, as was checked, in another place.
                    run.update_record(data={**run.record["data"], "root": root})
        finally:
            if command is not None and run.exists:
                run.update_record(command=list(command))


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
    run: RunFolder,
    config: Config,
    cell_command: Sequence[str] = CELL_COMMAND,
    environment: Mapping[str, str] | None = None,
    recorded: Sequence[str] = (),
) -> None:
    """Does what `run_cell` does in a new process, and waits for it.

    `cell_command` are arguments of Python that start a program which calls
    `main` with its last argument; `recorded` is the command for `run.json`.
    """
    with tempfile.TemporaryDirectory() as folder:
        job = os.path.join(folder, "job.json")
        reason = os.path.join(folder, "reason.txt")
        files.write_json(
            job,
            {
                "run": run.path,
                "config": config.to_dict(),
                "command": list(recorded),
                "reason": reason,
            },
        )
        # A session of its own: Ctrl-C reaches it through this process only.
        process = subprocess.Popen(
            [sys.executable, *cell_command, job],
            # Nothing is sent: its end says that this process is gone.
            stdin=subprocess.PIPE,
            start_new_session=True,
            env=environment,
        )
        with process, deferred_signals(process.send_signal) as request:
            code = process.wait()
        if request.signal:
            raise CellInterrupted(request.signal)
        if code:
            raise CellError(_describe_end(reason, code))


def _describe_end(reason: str, code: int) -> str:
    if os.path.isfile(reason):
        with open(reason, encoding="utf-8") as file:
            return file.read()
    if code < 0:
        return (
            f"its process was ended by signal {-code}. Was there too little "
            "memory?"
        )
    return f"its process has ended with code {code}"


def main(
    job: str, progress: Progress | None = None, has_traceback: bool = False
) -> int:
    """Runs a cell in this process, for `run_in_own_process`."""
    with open(job, encoding="utf-8") as file:
        values = json.load(file)
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    run = RunFolder(values["run"])
    try:
        config = resolve_layers([(values["config"], "")])
        run_cell(run, config, progress, values["command"])
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:
        # Whatever it is, the other cells can still be run.
        message = getattr(error, "message", None) or str(error)
        reason = f"{type(error).__name__}: {message}".strip()
        if has_traceback:
            reason = traceback.format_exc()
        files.write_text(values["reason"], reason)
        return 1
    return 0


def _stop_at_end_of_input() -> None:
    """Ends this process, if it can in good order, after the comparison's."""
    # Not through `sys.stdin`, whose lock the interpreter needs at its end.
    while os.read(0, 1):
        pass
    # Not SIGINT, which is ignored by what a shell has started with `&`.
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SECONDS_TO_STOP)
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
