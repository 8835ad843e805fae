import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from keras_sspcab.locks import folder_lock, remove_leftovers

HOLD = """
import sys, time
from keras_sspcab.locks import folder_lock
with folder_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that has the lock of a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "f"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_one_process_at_a_time(tmp_path, holder):
    folder = tmp_path / "f"
    with (
        pytest.raises(ValueError, match="is in use by") as caught,
        folder_lock(folder),
    ):
        pass
    message = str(caught.value)
    assert f"in use by process {holder.pid} on {os.uname().nodename}" in message
    assert f": -c {folder}. Wait until it has ended" in message
    # However it ends, the lock goes with it.
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert os.listdir(folder) == [".lock"]
    with folder_lock(folder) as is_locked:
        assert is_locked
    assert not list(folder.iterdir())


def test_waiting_for_another(tmp_path, holder):
    threading.Timer(0.3, holder.kill).start()
    with (
        folder_lock(tmp_path / "f", wait_seconds=60, command=["my", "a b"]),
        pytest.raises(ValueError, match="my 'a b'. Wait until"),
        folder_lock(tmp_path / "f"),
    ):
        pass


def test_folders_are_made_only_to_put_something_into_them(tmp_path):
    folder = tmp_path / "a" / "b"
    for name in ((), ("c",)):
        with folder_lock(folder):
            for part in name:
                (folder / part).touch()
        assert folder.exists() == bool(name)
    assert os.listdir(tmp_path) == ["a"]
    assert os.listdir(folder) == ["c"]


def test_a_link_that_leads_nowhere_is_told(tmp_path):
    link = tmp_path / "disk"
    link.symlink_to(tmp_path / "unmounted")
    with pytest.raises(FileExistsError), folder_lock(link):
        pass


def test_many_at_once_never_overlap(tmp_path):
    folder, inside, most = tmp_path / "f", [], []

    def work():
        for _ in range(50):
            with folder_lock(folder, wait_seconds=60):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)  # so that others could come in
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 200


def test_only_what_killed_processes_left_is_removed(tmp_path):
    left = (
        ".checkpoint.4711-0123abcd.tmp.npz",
        ".checkpoint-past_frames.0123456789abcdef.tmp.npz",
        ".history.1.tmp.csv",
        ".predictions.1.tmp/maps/000000.npy",
        "maps/00000/.000000001.0123456789abcdef.tmp.npy",
        ".report.0123456789abcdef.old/half",
    )
    kept = (
        "checkpoint.npz",
        ".hidden",
        ".x.tmp",
        "a.1.tmp",
        "report/whole",
        # Its own lock is held, or says when it was killed.
        "inner/.lock",
        "inner/.checkpoint.0123456789abcdef.tmp.npz",
    )
    for name in (*left, *kept, ".predictions.0123456789abcdef.old/scores.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    remove_leftovers(str(tmp_path))
    found = {
        path.relative_to(tmp_path).as_posix()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    # What was to be replaced comes back.
    assert found == {*kept, "predictions/scores.csv"}
    assert not (tmp_path / ".predictions.1.tmp").exists()
