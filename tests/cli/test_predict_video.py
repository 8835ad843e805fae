import dataclasses

import numpy as np
import pytest

pytest.importorskip("av")

from keras_sspcab.applications import FutureFrame
from keras_sspcab.data.video import (
    iterate_frames,
    iterate_timed_frames,
    make_video,
)
from keras_sspcab.runs.prediction import predict_videos
from tests.cli.cells import read_csv
from tests.data.video_writing import truncate, write_frames, write_video

COUNT = 12


def frames_of():
    rng = np.random.default_rng(3)
    frames = rng.integers(40, 60, (COUNT, 32, 32, 1), "uint8")
    frames[6:9] = rng.integers(0, 255, (3, 32, 32, 1), "uint8")
    return frames


def clips_of(frames):
    clips = np.stack([frames[i - 2 : i + 1] for i in range(2, len(frames))])
    return clips.astype("float32") / 255


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    model = FutureFrame(
        (3, 32, 32, 1),
        base_width=2,
        flow_estimator="none",
        adversarial_weight=0,
    )
    clips = clips_of(frames_of())
    model.calibrate(clips)
    # Half of the frames are flagged, none at the very threshold.
    scores = np.sort(model.predict(clips, verbose=0)["anomaly_score"])
    model.calibration = dataclasses.replace(
        model.calibration, threshold=float(scores[4:6].mean())
    )
    path = tmp_path_factory.mktemp("host") / "host.keras"
    model.save(path)
    return model, path


@pytest.mark.parametrize("kind", ["file", "frames"])
def test_a_video_is_annotated(host, tmp_path, invoke, kind):
    model, path = host
    frames = frames_of()
    if kind == "file":
        video = write_video(tmp_path / "clip.avi", frames, rate=10)
    else:
        video = write_frames(tmp_path / "clip", frames)
    out = tmp_path / "all.csv"
    results = tmp_path / "results"
    options = ("--video", video, "--results", results, "--out", out)
    assert "clip" in invoke("predict", path, *options).output
    assert {p.name for p in results.iterdir()} == {
        "clip-annotated.mp4",
        "clip-timeline.png",
        "clip-scores.csv",
    }
    annotated = make_video(results / "clip-annotated.mp4")
    assert sum(1 for _ in iterate_frames(annotated)) == COUNT
    rows = read_csv(results / "clip-scores.csv")
    assert [int(row["frame"]) for row in rows] == list(range(2, COUNT))
    seconds = 0.1 if kind == "file" else 0.04
    assert float(rows[0]["seconds"]) == pytest.approx(2 * seconds)
    expected = model.predict(clips_of(frames), verbose=0)
    for name in ("anomaly_score", "raw_score"):
        np.testing.assert_allclose(
            [float(row[name]) for row in rows],
            expected[name],
            rtol=1e-3,
            atol=1e-3,
        )
    flags = [int(row["is_anomalous"]) for row in rows]
    assert flags == expected["is_anomalous"].astype(int).tolist()
    assert sum(flags)
    assert [row["video"] for row in read_csv(out)] == ["clip"] * len(rows)
    invoke("predict", path, *options, "--fail-on-anomaly", code=1)


def test_times_are_those_of_the_frames(host, tmp_path, invoke):
    times = [*range(0, 320, 40), 1500, 2750, 2760, 4000]
    video = write_video(tmp_path / "clip.mkv", frames_of(), times=times)
    invoke("predict", host[1], "--video", video, "--results", tmp_path)
    rows = read_csv(tmp_path / "clip-scores.csv")
    expected = [time / 1000 for time in times]
    assert [float(row["seconds"]) for row in rows] == expected[2:]
    annotated = make_video(tmp_path / "clip-annotated.mp4")
    shown = [seconds for seconds, _ in iterate_timed_frames(annotated)]
    assert shown == pytest.approx(expected)
    (prediction,) = predict_videos(host[0], [video], tmp_path)
    is_flagged = [bool(row["is_anomalous"]) for row in prediction.rows]
    first = is_flagged.index(True)
    last = first + [*is_flagged[first:], False].index(False) - 1
    begin_and_end = rows[first]["seconds"], rows[last]["seconds"]
    assert prediction.alarms()[0] == tuple(map(float, begin_and_end))


def test_broken_videos_leave_earlier_results(host, tmp_path, invoke):
    video = write_video(tmp_path / "clip.avi", frames_of())
    results = tmp_path / "results"
    results.mkdir()
    (results / "notes.txt").write_text("mine")
    before = results / "clip-annotated.mp4"
    before.write_bytes(b"before")
    truncate(video, 0.6)
    options = ("--video", video, "--results", results)
    result = invoke("predict", host[1], *options, code=2)
    assert "clip.avi" in result.stderr
    assert before.read_bytes() == b"before"
    assert {p.name for p in results.iterdir()} == {"notes.txt", before.name}


def test_wrong_inputs_are_named(host, trained, images, tmp_path, invoke):
    video = write_frames(tmp_path / "clip", frames_of())
    for arguments, message in (
        ((host[1],), "neither"),
        ((host[1], images, "--video", video), "both"),
        ((host[1], images), "looks at videos"),
        ((trained, "--video", video), "looks at single images"),
        ((host[1], "--video", tmp_path / "no.mp4"), "does not exist"),
        ((host[1], "--video", video, "--video", video), "must differ"),
        ((host[1], "--video", video, "--stride", 9), "at least 19 frames"),
    ):
        result = invoke("predict", *arguments, code=2)
        assert message in result.stderr.replace("\n", " ")
