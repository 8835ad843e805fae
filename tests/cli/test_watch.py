import json
import os
import signal
import threading

import pytest
import typer
from PIL import Image

from keras_sspcab.cli import app
from tests.data.video_writing import write_video
from tests.export.watch.cameras import Camera, frame, wait_until

pytest.importorskip("av")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A gray door, with somebody in it."""
    path = tmp_path_factory.mktemp("video") / "door.mkv"
    return write_video(path, [frame(5 <= i < 15) for i in range(25)])


def events_of(folder):
    path = folder / "alarms.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["event"] for line in lines]


def test_a_video_is_watched_to_its_end(invoke, trained, video, tmp_path):
    scores = tmp_path / "scores.csv"
    images = tmp_path / "images"
    images.mkdir()
    for name in (False, True):
        Image.fromarray(frame(name)).save(images / f"{name}.png")
    invoke("predict", trained, images, "--out", scores)
    rows = [line.split(",") for line in scores.read_text().splitlines()]
    column = rows[0].index("anomaly_score")
    normal, anomalous = sorted(float(row[column]) for row in rows[1:])
    done = invoke(
        *("watch", trained, video, "--out", tmp_path / "out", "--fast"),
        *("--threshold", (normal + anomalous) / 2, "--clear-after", 3),
    )
    assert events_of(tmp_path / "out") == ["begin", "end"]
    assert "run watches" in done.output
    assert "is over: normal again" in done.output
    assert "25 scored" in done.output
    assert len(list((tmp_path / "out" / "alarms").glob("*.mp4"))) == 1


@pytest.mark.parametrize("page", [["--page", "0"], []], ids=["page", "none"])
def test_ctrl_c_ends_it_cleanly(invoke, trained, tmp_path, page):
    with Camera() as camera:

        def interrupt():
            wait_until(lambda: events_of(tmp_path), 60)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        done = invoke(
            *("watch", trained, camera.url, "--out", tmp_path),
            *("--threshold", -1000, *page),
        )
    assert events_of(tmp_path) == ["begin", "end"]
    assert len(list((tmp_path / "alarms").glob("*.mp4"))) == 1
    assert ("Live page: http://127.0.0.1:" in done.output) == bool(page)
    assert "secret" not in done.output


def test_what_cannot_be_watched_is_told(invoke, trained, tmp_path):
    done = invoke("watch", trained, tmp_path / "no.mp4", code=2)
    assert "number or device of a camera" in done.output
    done = invoke("watch", trained, "0", "--host=0.0.0.0", code=2)
    assert "--host, --allowed-host and --token-file are for --p" in done.stderr
    done = invoke("watch", trained, "0", "--fast", code=2)
    assert "Only a file can be played fast" in done.output
    done = invoke("watch", trained, "0", "--webhook", "ftp://x", code=2)
    assert "--webhook must be a URL" in done.output


@pytest.mark.parametrize(
    ("arguments", "port"),
    [
        ("m 0", None),
        ("m 0 --page", 8502),
        ("--page m 0", 8502),
        ("--page 9000 m 0", 9000),
    ],
)
def test_the_page_needs_no_port(arguments, port):
    command = typer.main.get_command(app).commands["watch"]
    context = command.make_context("watch", arguments.split())
    assert context.params["page"] == port


@pytest.mark.parametrize("name", ["watch", "package"])
def test_what_is_missing_is_told(invoke, name):
    assert "Missing " in invoke(name, code=2).stderr
