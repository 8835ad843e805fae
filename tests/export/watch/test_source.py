import logging
import time

import numpy as np
import pytest

from keras_sspcab.export.watch import source as source_module
from keras_sspcab.export.watch.source import Source, hide_secrets
from tests.data.video_writing import (
    noise,
    numbered,
    write_frames,
    write_video,
)
from tests.export.watch.cameras import SIZE, RtspCamera, frame, wait_until


@pytest.fixture
def open_source():
    opened = []

    def open_source(*args, **kwargs):
        opened.append(Source(*args, **kwargs))
        opened[-1].start()
        return opened[-1]

    yield open_source
    for source in opened:
        source.stop()


def take_all(source, pause=0.0):
    """The numbers of all frames that come, as they are taken."""
    taken = []
    while not source.has_ended:
        frames = source.take(0.5)
        if frames:
            taken.append([f.number for f in frames])
            time.sleep(pause)
    return taken


def test_a_stream_is_read(camera, open_source):
    source = open_source(camera.url)
    (first,) = source.take(10)
    assert first.pixels.shape == (*SIZE, 3)
    assert np.abs(first.pixels.astype(int) - frame()).max() < 10
    assert first.time.tzinfo is not None
    wait_until(lambda: source.arrivals.rate > 10)
    assert source.state == "connected"


def test_a_stream_is_read_over_rtsp(open_source):
    with RtspCamera() as camera:
        source = open_source(camera.url)
        (first,) = source.take(20)
    assert np.abs(first.pixels.astype(int) - frame()).max() < 10
    assert source.name.startswith("rtsp://127.0.0.1:")


def test_frames_of_a_file_come_at_its_pace(video, open_source):
    source = open_source(str(video))
    start = time.monotonic()
    taken = take_all(source)
    assert time.monotonic() - start > 39 / 25 * 0.9
    assert source.state == "ended"
    assert source.num_received == 40
    assert len(taken) + source.num_dropped == 40


def test_a_file_is_waited_for_as_long_as_it_says(tmp_path, open_source):
    # Recorders leave out frames while nothing moves.
    path = tmp_path / "sparse.mkv"
    write_video(path, noise(3, (32, 48), 3), times=[0, 600, 1200])
    source = open_source(str(path), timeout=0.1)
    states = set()
    while not source.has_ended:
        source.take(0.05)
        states.add(source.state)
    assert states <= {"connecting", "connected", "ended"}


def test_a_fast_file_waits_and_drops_nothing(video, open_source):
    source = open_source(str(video), fast=True, window=4)
    assert take_all(source, pause=0.002) == [[n] for n in range(40)]
    assert source.num_dropped == 0


@pytest.mark.parametrize("window", [1, 4])
def test_only_the_newest_frames_wait(video, open_source, window):
    source = open_source(str(video), window=window)
    wait_until(lambda: source.num_received >= 20)
    frames = source.take(0)
    numbers = [f.number for f in frames]
    assert len(numbers) == window
    assert numbers == list(range(numbers[0], numbers[0] + window))
    assert source.num_dropped == numbers[-1]


def test_a_folder_of_frames_is_a_video(tmp_path, open_source):
    folder = write_frames(tmp_path / "frames", numbered(5))
    source = open_source(str(folder), fast=True)
    assert take_all(source) == [[n] for n in range(5)]


@pytest.mark.parametrize("fault", ["stall", "break", "refuse"])
def test_a_lost_stream_is_opened_again(
    camera, open_source, fault, quick_retries, caplog
):
    with caplog.at_level(logging.INFO):
        source = open_source(camera.url, timeout=0.5, window=3)
        (first, *_) = source.take(10)
        camera.fault = fault
        wait_until(lambda: source.state == "reconnecting")
        assert source.reason
        wait_until(lambda: camera.num_connections >= 3)
        camera.fault = None
        wait_until(lambda: source.state == "connected")
        wait_until(lambda: source.take(1))
        later = wait_until(lambda: source.take(1))
    assert {f.connection for f in later} != {first.connection}
    assert len({f.connection for f in later}) == 1
    assert "is lost" in caplog.text
    assert "is back" in caplog.text
    for secret in ("secret", "hidden"):
        assert secret not in caplog.text + source.name + source.reason


def test_a_stream_that_nothing_can_decode_is_opened_again(
    camera, open_source, quick_retries
):
    source = open_source(camera.url, timeout=1)
    wait_until(lambda: source.state == "connected")
    camera.num_whole = 0
    wait_until(lambda: source.state == "reconnecting")
    assert source.reason == "no frame in what the stream sends"
    camera.num_whole = 1_000_000
    wait_until(lambda: source.state == "connected")
    assert camera.num_connections > 1


def test_a_frozen_camera_is_told(camera, open_source, monkeypatch, caplog):
    monkeypatch.setattr(source_module, "_MOST_ALIKE", 0.3)
    source = open_source(camera.url)
    wait_until(lambda: source.reason == "the same picture over and over")
    assert source.state == "connected"
    assert caplog.text.count("is it frozen?") == 1
    camera.is_anomalous = True
    wait_until(lambda: source.reason == "")


def test_a_stalled_stream_says_how_long(camera, open_source, quick_retries):
    source = open_source(camera.url, timeout=0.3)
    source.take(10)
    camera.fault = "stall"
    wait_until(lambda: source.state == "reconnecting")
    assert source.reason == "no frame came for 0.3 s"


def test_a_stream_is_given_up_after_failures_in_a_row(
    camera, open_source, quick_retries
):
    camera.fault = "refuse"
    source = open_source(camera.url, reconnect=2)
    wait_until(lambda: source.has_ended)
    assert source.state == "lost"
    assert camera.num_connections == 3
    assert "5XX" in source.reason


def test_broken_files_are_lost_at_once(video, tmp_path, open_source):
    path = tmp_path / "cut.mkv"
    path.write_bytes(video.read_bytes()[: video.stat().st_size // 8])
    source = open_source(str(path), fast=True)
    take_all(source)
    assert source.state == "lost"
    assert "cut.mkv" in source.reason


def test_frames_of_another_size_are_another_connection(
    camera, open_source, quick_retries
):
    source = open_source(camera.url)
    (first,) = source.take(10)
    camera.size = (24, 32)
    later = wait_until(
        lambda: [f for f in source.take(1) if f.pixels.shape[0] == 24]
    )
    assert later[0].connection > first.connection


def test_names_of_the_environment_are_replaced(monkeypatch):
    monkeypatch.setenv("CAMERA_PASSWORD", "secret")
    source = Source("rtsp://me:$CAMERA_PASSWORD@door:554/1?channel=2")
    assert source.name == "rtsp://door:554/1"
    assert hide_secrets("/dev/video0") == "/dev/video0"
    assert hide_secrets("http://door/me@home") == "http://door/me@home"


@pytest.mark.parametrize("secret", ["se/cret", "se?cret", "se#cret", "12/cret"])
def test_passwords_that_hide_where_they_end_are_refused(secret):
    with pytest.raises(ValueError, match="write / as %2F") as caught:
        Source(f"rtsp://me:{secret}@10.0.0.7/1")
    assert "cret" not in str(caught.value)
    hidden = Source("rtsp://me:se%2Fcret@10.0.0.7/1").name
    assert hidden == "rtsp://10.0.0.7/1"


def test_what_is_no_source_is_refused(tmp_path, video, monkeypatch):
    with pytest.raises(ValueError, match="There is none at 'no.mp4'"):
        Source("no.mp4")
    with pytest.raises(ValueError, match="Only a file can be played fast"):
        Source("rtsp://door/1", fast=True)
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(ValueError, match="Give the URL"):
        Source("0")


def test_a_camera_that_is_not_there_is_lost(open_source):
    source = open_source("9999", reconnect=0)
    wait_until(lambda: source.has_ended)
    assert source.state == "lost"
    assert source.reason


def test_pyav_is_asked_for(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ImportError, match=r"keras-sspcab\[video\]"):
        Source("0")


def test_streams_may_lose_parts(camera, open_source):
    camera.num_whole = 3
    source = open_source(camera.url)
    wait_until(lambda: source.num_received > 10)
    assert camera.num_connections == 1
