import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from keras_sspcab.compare.cell import (
    CELL_COMMAND,
    CellError,
    CellInterrupted,
    run_in_own_process,
)
from keras_sspcab.compare.conditions import hardware
from keras_sspcab.runs import RunFolder
from keras_sspcab.runs.parsing import load_config


def run_alone(path, *cell_command):
    config = load_config(None, {"data.path": "/missing"})
    run = RunFolder(str(path))
    run_in_own_process(run, config, cell_command, recorded=["x", "y"])


def test_failure_in_the_process_has_its_reason(tmp_path):
    with pytest.raises(CellError, match="ValueError: The image folder"):
        run_alone(tmp_path / "r", *CELL_COMMAND)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9. Was there"),
        ("raise SystemExit(7)", "has ended with code 7"),
    ],
)
def test_end_of_the_process_is_told(tmp_path, script, message):
    with pytest.raises(CellError, match=message):
        run_alone(tmp_path / "r", "-c", script)


def test_signals_are_passed_on(tmp_path):
    ready, seen = tmp_path / "ready", tmp_path / "seen"
    script = f"""
import pathlib, signal, time
def note(number, frame):
    pathlib.Path({str(seen)!r}).write_text(str(number))
    raise SystemExit(1)
signal.signal(signal.SIGTERM, note)
pathlib.Path({str(ready)!r}).touch()
time.sleep(60)
"""

    def send():
        while not ready.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=send, daemon=True).start()
    with pytest.raises(CellInterrupted) as caught:
        run_alone(tmp_path / "r", "-c", script)
    assert caught.value.signal == signal.SIGTERM
    assert seen.read_text() == str(int(signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) == handler


DRIVER = """
import sys
from keras_sspcab.compare.cell import run_in_own_process
from keras_sspcab.runs import RunFolder
from keras_sspcab.runs.parsing import load_config
run_in_own_process(RunFolder(sys.argv[1]), load_config(None), sys.argv[2:])
"""

# Neither a training, which looks at signals, nor fast.
CELL = """
import pathlib, sys, time
from keras_sspcab.compare import cell
def run_cell(run, *_):
    with run.locked():
        pathlib.Path(run.file("ready")).touch()
        time.sleep(60)
cell.run_cell = run_cell
cell.main(sys.argv[-1])
"""


def test_no_cell_outlives_its_comparison(tmp_path):
    run = RunFolder(str(tmp_path / "r"))
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, run.path, "-c", CELL],
        # As a shell starts what is to run in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    while not os.path.exists(run.file("ready")):
        assert driver.poll() is None
        time.sleep(0.01)
    with pytest.raises(ValueError, match="in use by process"), run.locked():
        pass
    driver.kill()
    driver.wait()
    with run.locked(wait_seconds=30):
        pass


def test_hardware_is_described():
    assert re.fullmatch(r".+, \d+ cores(; .+)*", hardware())
