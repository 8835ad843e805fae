import datetime
import json
import logging
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from keras_sspcab.data.video import (
    iterate_frames,
    iterate_timed_frames,
    make_video,
)
from keras_sspcab.export.watch import recording
from keras_sspcab.export.watch.recording import Recorder
from keras_sspcab.export.watch.source import Frame
from tests.export.watch.cameras import frame, lines_of

NAME = "20260102-030405-{:03d}"


def make_frame(seconds, pixels=None):
    pixels = frame() if pixels is None else pixels
    now = datetime.datetime.now().astimezone()
    return Frame(int(seconds * 10), 0, pixels, now, seconds, seconds)


def record(recorder, alarm=range(30, 50), until=80, number=0):
    """Feeds ten frames a second, with an alarm among them."""
    line = {"id": NAME.format(number), "event": "begin"}
    for index in range(until):
        if index == alarm.start:
            recorder.begin(dict(line), frame())
        if index == alarm.stop:
            recorder.end(dict(line, event="end", clip=None))
        recorder.add(make_frame(index / 10, frame(index in alarm)))
    recorder.close()


def test_a_clip_begins_before_the_alarm_and_ends_with_it(tmp_path):
    told = []
    recorder = Recorder(str(tmp_path), 1.0, 60, 1e9, told.append)
    record(recorder)
    begin, end = lines_of(tmp_path)
    assert told == [begin, end]
    with Image.open(tmp_path / begin["picture"]) as picture:
        assert picture.size == (64, 48)
    shown = list(iterate_frames(make_video(tmp_path / end["clip"])))
    assert len(shown) == pytest.approx(10 + 20, abs=2)
    bright = [pixels.max() > 200 for pixels in shown]
    assert bright.count(True) == pytest.approx(20, abs=1)
    assert not any(bright[:9])


def test_a_clip_shows_its_alarm_however_long_the_model_takes(tmp_path):
    recorder = Recorder(str(tmp_path), 1.0, 60, 1e9)
    line = {"id": NAME.format(0), "event": "begin"}
    for index in range(60):
        if index == 20:
            recorder.look_at(make_frame(2.0))
        recorder.add(make_frame(index / 10, frame(index == 20)))
    # Four seconds later.
    recorder.begin(dict(line), frame())
    recorder.end(dict(line, event="end", clip=None))
    recorder.close()
    shown = list(
        iterate_frames(make_video(tmp_path / lines_of(tmp_path)[1]["clip"]))
    )
    assert len(shown) == pytest.approx(10 + 40, abs=2)
    (bright,) = np.flatnonzero([pixels.max() > 200 for pixels in shown])
    assert bright == pytest.approx(10, abs=1)


def test_clips_are_of_bounded_length(tmp_path):
    record(Recorder(str(tmp_path), 0.5, 1.0, 1e9), range(5, 75))
    clip = make_video(tmp_path / lines_of(tmp_path)[1]["clip"])
    assert len(list(iterate_frames(clip))) == pytest.approx(11, abs=2)


def test_all_that_waited_is_in_the_clip(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "_MAX_WAITING", 8)
    recorder = Recorder(str(tmp_path), 3.0, 60, 1e9)
    record(recorder, range(30, 35), until=40)
    clip = make_video(tmp_path / lines_of(tmp_path)[1]["clip"])
    times = [seconds for seconds, _ in iterate_timed_frames(clip)]
    # None is missing before the alarm, which begins at 3 s.
    before = [seconds for seconds in times if seconds < 2.95]
    np.testing.assert_allclose(np.diff(before), 0.1, atol=0.02)
    assert len(before) == pytest.approx(30, abs=1)


def test_there_need_be_no_clips(tmp_path):
    record(Recorder(str(tmp_path), 5, 0, 1e9))
    assert lines_of(tmp_path)[1]["clip"] is None
    assert not list(tmp_path.glob("**/*.mp4"))


def test_what_waits_for_an_alarm_is_bounded_in_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "_MAX_BYTES", 50_000)
    recorder = Recorder(str(tmp_path), 1e6, 60, 1e9)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), "uint8")
    for index in range(20):
        recorder.add(make_frame(index / 10, noise))
    tracemalloc.start()
    for index in range(20, 200):
        recorder.add(make_frame(index / 10, noise))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 150_000


def test_frames_are_made_small_enough_for_clips():
    wide = np.zeros((300, 4000, 3), "uint8")
    data = recording.compress(wide)
    with Image.open(recording.io.BytesIO(data)) as image:
        assert image.size == (recording.MAX_SIDE, 96)


def test_the_oldest_of_our_files_are_removed(tmp_path):
    recorder = Recorder(str(tmp_path), 1, 60, 1e9)
    for number in range(3):
        record(recorder, number=number)
    media = tmp_path / "alarms"
    sizes = {p.name: p.stat().st_size for p in media.iterdir()}
    assert len(sizes) == 6
    others = ["holiday.mp4", "20260102-030405-001.txt", "x" + NAME + ".jpg"]
    for name in others:
        (media / name).write_bytes(b"0" * 100_000)
    newest = sum(s for n, s in sizes.items() if n.startswith(NAME.format(2)))
    recorder = Recorder(str(tmp_path), 1, 60, newest + 10)
    record(recorder, number=2)
    left = {p.name for p in media.iterdir()}
    assert left == {*others, f"{NAME.format(2)}.mp4", f"{NAME.format(2)}.jpg"}


def test_an_alarm_that_has_just_ended_keeps_its_files(tmp_path):
    media = tmp_path / "alarms"
    media.mkdir()
    # The clock was wrong.
    future = media / "20360102-030405-000.mp4"
    future.write_bytes(b"0" * 100_000)
    recorder = Recorder(str(tmp_path), 1, 60, 10)
    record(recorder)
    assert (tmp_path / lines_of(tmp_path)[1]["clip"]).exists()
    assert not future.exists()


def test_a_full_disk_ends_clips_and_not_the_watching(
    tmp_path, small_disk, caplog
):
    recorder = Recorder(str(tmp_path), 1, 60, 1e9)
    (tmp_path / "alarms.jsonl").touch()
    with small_disk(300):
        record(recorder)
    assert "No clip of the alarm" in caplog.text
    assert "No picture of the alarm" in caplog.text
    assert lines_of(tmp_path)[1]["clip"] is None
    assert not list((tmp_path / "alarms").iterdir())
    record(recorder, number=1)
    assert lines_of(tmp_path)[-1]["clip"]


def test_lines_follow_one_that_was_cut_off(tmp_path):
    path = tmp_path / "alarms.jsonl"
    path.write_bytes(b'{"id": 1}\n{"id')
    record(Recorder(str(tmp_path), 1, 0, 1e9))
    lines = path.read_bytes().splitlines()
    assert lines[:2] == [b'{"id": 1}', b'{"id']
    assert [json.loads(x)["event"] for x in lines[2:]] == ["begin", "end"]


def test_lines_that_cannot_be_written_are_told(tmp_path, caplog):
    (tmp_path / "alarms.jsonl").mkdir()
    told = []
    with caplog.at_level(logging.WARNING):
        record(Recorder(str(tmp_path), 1, 0, 1e9, told.append))
    assert "cannot be written" in caplog.text
    assert len(told) == 2


def test_a_camera_may_come_back_with_another_size(tmp_path):
    recorder = Recorder(str(tmp_path), 1, 60, 1e9)
    recorder.add(make_frame(0.0))
    line = {"id": NAME.format(0), "event": "begin"}
    recorder.begin(dict(line), frame())
    recorder.add(make_frame(0.1, frame(size=(24, 24))))
    recorder.end(dict(line, event="end", clip=None))
    recorder.close()
    clip = make_video(tmp_path / lines_of(tmp_path)[1]["clip"])
    shapes = {p.shape for p in iterate_frames(clip)}
    assert shapes == {(48, 64, 3)}
