import dataclasses
import json
import signal
import subprocess
import sys
import textwrap
import threading
import tracemalloc
import types

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_sspcab.applications import MNAD, AutoEncoder
from keras_sspcab.data import decode_and_resize
from keras_sspcab.data.video import iterate_frames, make_video
from keras_sspcab.export.watch import (
    Watch,
    WatchOptions,
    load_frame_scorer,
    scoring,
)
from keras_sspcab.hosts import score_frames
from keras_sspcab.scoring import Calibration
from tests.applications.helpers import moving_squares
from tests.data.video_writing import noise, write_video
from tests.export.watch.cameras import (
    Brightness,
    lines_of,
    running,
    wait_until,
)
from tests.export.watch.test_webhook import Receiver


def watch_of(source, folder, scorer=None, **options):
    options = {"alarm_after": 2, "clear_after": 3, **options}
    scorer = scorer or Brightness()
    return Watch(scorer, str(source), folder, WatchOptions(**options))


def test_an_alarm_from_its_begin_to_its_end(video, tmp_path):
    receiver = Receiver(200)
    watch = watch_of(video, tmp_path, fast=True, webhook=receiver.url)
    watch.run()
    receiver.close()
    begin, end = lines_of(tmp_path)
    assert [body for _, body in receiver.received] == [begin, end]
    assert begin | {"id": 0, "time": 0, "picture": 0} == {
        "event": "begin",
        "id": 0,
        "time": 0,
        "source": str(video),
        "model": "brightness",
        "frame": 11,
        "seconds": 0.44,
        "score": 8.0,
        "threshold": 3.0,
        "rule": "from score 3 on",
        "frame_size": [64, 48],
        "peak": [28, 20],
        "boxes": [[24, 16, 39, 31]],
        "picture": 0,
    }
    assert end["frame"] == 22
    assert end["reason"] == "normal again"
    assert end["num_frames"] == 12
    assert end["duration"] == pytest.approx(11 / 25, abs=0.01)
    assert end["id"] == begin["id"]
    assert end["began"] == begin["time"]
    picture = np.asarray(Image.open(tmp_path / begin["picture"]))
    red = picture[80:160, 120:200].reshape(-1, 3).mean(0)
    assert red[0] > red[2] + 50  # the heat map, on the enlarged frame
    shown = [
        p.max() for p in iterate_frames(make_video(tmp_path / end["clip"]))
    ]
    assert shown[0] < 150 < max(shown)


def test_a_threshold_of_its_own(video, tmp_path):
    scorer = Brightness()
    scorer.overrule(9.0)
    watch_of(video, tmp_path, scorer, fast=True).run()
    assert not (tmp_path / "alarms.jsonl").exists()
    scorer.overrule(-5.0)
    watch_of(video, tmp_path, scorer, fast=True).run()
    begin, end = lines_of(tmp_path)
    assert begin["frame"] == 1
    assert end["reason"] == "stopped"


def test_a_threshold_of_its_own_takes_the_place_of_all_others():
    scorer = Brightness()
    part = dataclasses.replace(scorer.calibration, name="nut", threshold=1.0)
    scorer.calibration = dataclasses.replace(
        scorer.calibration, products=(part,), regions=(part,)
    )
    scorer.overrule(9.0)
    assert scorer.calibration.describe_rule() == (
        Calibration(threshold=9.0).describe_rule()
    )


@pytest.mark.parametrize(
    ("product", "threshold", "rule", "has_boxes"),
    [
        (0, 2.0, "nut: from score 2 on", True),
        (1, 6.0, "bolt: from score 6 on", False),
        (-1, None, "as an unknown product", False),
    ],
)
def test_alarms_tell_the_threshold_of_the_product(
    video, tmp_path, product, threshold, rule, has_boxes
):
    class OfProducts(Brightness):
        def score(self, frames):
            index = np.int32(product)
            return {**super().score(frames), "product_index": index}

    scorer = OfProducts()
    scorer.calibration = Calibration.of_products(
        {
            "nut": Calibration(threshold=2.0, pixel_threshold=2.0),
            # No pixel reaches it.
            "bolt": Calibration(threshold=6.0, pixel_threshold=90.0),
        }
    )
    watch = watch_of(video, tmp_path, scorer, fast=True)
    before = watch.live.describe()
    assert before["threshold"] is None
    assert before["rule"] == "nut: from score 2 on, bolt: from score 6 on"
    watch.run()
    begin, end = lines_of(tmp_path)
    live = watch.live.describe()
    for told in (begin, end, live):
        assert told["threshold"] == threshold
    assert begin["rule"] == live["rule"] == rule
    assert bool(begin["boxes"]) == has_boxes
    # Of an unknown one too, as `predict` colors it.
    assert live["frame"]["heat"] is not None


def test_a_slow_model_sees_the_newest_frames(camera, tmp_path):
    camera.rate = 100
    scorer = Brightness(delay=0.1)
    watch = watch_of(camera.url, tmp_path, scorer)
    with running(watch):
        wait_until(lambda: watch.live.num_scored >= 30)
        assert watch.source.num_dropped > 30
        # Of a queue it would be three seconds by now.
        assert watch.live.delay < 1.0
        assert {len(numbers) for numbers in scorer.seen} == {1}


def test_a_model_of_clips_gets_frames_that_follow_each_other(
    camera, tmp_path, quick_retries
):
    camera.rate = 100
    scorer = Brightness(delay=0.05, span=3)
    watch = watch_of(camera.url, tmp_path, scorer, timeout=1)
    with running(watch):
        wait_until(lambda: len(scorer.seen) > 10)
        camera.fault = "break"
        wait_until(lambda: watch.source.state == "reconnecting")
        camera.fault = None
        count = len(scorer.seen)
        wait_until(lambda: len(scorer.seen) > count + 3)
    for numbers in scorer.seen:
        assert len(numbers) <= 3
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert watch.source.num_dropped > 10


def test_an_alarm_ends_when_the_camera_goes(camera, tmp_path, quick_retries):
    camera.is_anomalous = True
    watch = watch_of(camera.url, tmp_path, timeout=0.5)
    with running(watch):
        wait_until(lambda: (tmp_path / "alarms.jsonl").exists())
        camera.fault = "stall"
        wait_until(lambda: len(lines_of(tmp_path)) == 2)
        camera.fault = None
        wait_until(lambda: len(lines_of(tmp_path)) == 3)
    reasons = [x["reason"] for x in lines_of(tmp_path) if x["event"] == "end"]
    assert reasons == ["source lost", "stopped"]
    text = (tmp_path / "alarms.jsonl").read_text()
    assert "secret" not in text
    assert "hidden" not in text


def test_an_alarm_ends_when_the_camera_is_lost(camera, tmp_path):
    camera.is_anomalous = True
    watch = watch_of(camera.url, tmp_path, timeout=0.5, reconnect=0)

    def leave():
        wait_until(lambda: (tmp_path / "alarms.jsonl").exists())
        camera.fault = "stall"

    threading.Thread(target=leave, daemon=True).start()
    with pytest.raises(ValueError, match="is lost"):
        watch.run()
    assert lines_of(tmp_path)[-1]["reason"] == "source lost"


def test_alarms_that_were_left_out_are_told(camera, tmp_path):
    watch = watch_of(camera.url, tmp_path)
    assert not watch.live.describe()["has_older_alarms"]
    line = {"event": "begin", "time": 0, "score": 1.0, "rule": 3000 * "x"}
    lines = [json.dumps({**line, "id": str(i)}) for i in range(40)]
    (tmp_path / "alarms.jsonl").write_text("\n".join(lines))
    watch.live.remember(tmp_path)
    live = watch.live.describe()
    assert 10 < len(live["alarms"]) < 40
    assert live["has_older_alarms"]


def test_a_lost_source_is_an_error(camera, tmp_path, quick_retries):
    camera.fault = "refuse"
    with pytest.raises(ValueError, match=r"127\.0\.0\.1.*is lost: .*5XX"):
        watch_of(camera.url, tmp_path, reconnect=1).run()


def test_one_watch_at_a_time_writes_to_a_folder(camera, tmp_path):
    watch = watch_of(camera.url, tmp_path)
    with running(watch):
        wait_until(lambda: watch.live.num_scored)
        assert "secret" not in (tmp_path / ".lock").read_text()
        with pytest.raises(ValueError, match="in use by"):
            watch_of(camera.url, tmp_path).run()


def test_frames_without_a_verdict_are_counted(video, tmp_path, caplog):
    class Doubtful(Brightness):
        def score(self, frames):
            if frames[-1].number % 2:
                raise ValueError("the model gives the score nan")
            return super().score(frames)

    watch = watch_of(video, tmp_path, Doubtful(), fast=True)
    watch.run()
    assert watch.live.num_faults == 20
    assert watch.live.describe_status().endswith(", 20 without a verdict")
    assert caplog.text.count("the model gives the score nan") == 1
    assert len(lines_of(tmp_path)) == 2


def test_memory_stays_as_it_is(camera, tmp_path):
    camera.rate = 400
    camera.size = (240, 320)
    watch = watch_of(camera.url, tmp_path, Brightness(0.05), before=0.5)
    with running(watch):
        wait_until(lambda: watch.source.num_received > 50)
        tracemalloc.start()
        count = watch.source.num_received + 200
        wait_until(lambda: watch.source.num_received > count)
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    # Two hundred frames would be 46 MB.
    assert grown < 5e6


@pytest.mark.slow
def test_a_kill_leaves_lines_and_clips_of_before(video, tmp_path):
    program = f"""
        from tests.export.watch.test_watching import *
        from keras_sspcab.export.watch import AlarmCounter
        watch = watch_of({str(video)!r}, {str(tmp_path)!r}, fast=True)
        watch._scorer.delay = 0.02
        watch.run()
        watch = watch_of({str(video)!r}, {str(tmp_path)!r}, clear_after=99)
        watch.run(lambda: len(lines_of(__import__("pathlib").Path(
            {str(tmp_path)!r}))) == 3 and __import__("os").kill(
                __import__("os").getpid(), 9))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)])
    assert done.returncode == -signal.SIGKILL
    lines = lines_of(tmp_path)
    assert [x["event"] for x in lines] == ["begin", "end", "begin"]
    (clip,) = (tmp_path / "alarms").glob("[0-9]*.mp4")
    assert str(clip).endswith(lines[1]["clip"])
    watch = watch_of(video, tmp_path, fast=True)
    watch.run()
    # What the kill left is gone, and known to be over.
    assert not list((tmp_path / "alarms").glob(".*"))
    assert [a["is_over"] for a in watch.live.describe()["alarms"]] == [True] * 3


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match="`timeout`"):
        WatchOptions(timeout=0)
    with pytest.raises(ValueError, match="`reconnect`"):
        WatchOptions(reconnect=-1)
    with pytest.raises(ValueError, match="`keep`"):
        WatchOptions(keep=-1)
    # It would be over before its alarm.
    with pytest.raises(ValueError, match="max_clip=4, before=5"):
        WatchOptions(max_clip=4)
    assert WatchOptions(max_clip=0).before == 5


# === Models ===


@pytest.fixture(scope="module")
def image_model():
    model = AutoEncoder((32, 32, 1), filters=(4, 4, 2), smoothing=1)
    model.calibrate(np.random.default_rng(0).random((8, 32, 32, 1), "float32"))
    return model


@pytest.fixture
def frames(tmp_path):
    """Frames of noise, as a file, and as a source gives them."""
    pixels = noise(6, (24, 40), channels=3)
    path = write_video(tmp_path / "noise.mkv", pixels)
    taken = []

    class Keeper(Brightness):
        def score(self, frames):
            taken.extend(frames)

    watch_of(path, tmp_path / "out", Keeper(), fast=True).run()
    return path, taken


def test_images_are_scored_as_files_of_them(image_model, frames, tmp_path):
    image_model.save(tmp_path / "a.keras")
    scorer = load_frame_scorer(tmp_path / "a.keras")
    pixels = np.stack([f.pixels for f in frames[1]])
    files = [tf.io.encode_png(one) for one in pixels]
    read = [decode_and_resize(file, (32, 32), 1).numpy() for file in files]
    expected = image_model.predict_on_batch(np.stack(read))
    for index, one in enumerate(frames[1]):
        outputs = scorer([one])
        for name in ("anomaly_score", "anomaly_map"):
            np.testing.assert_allclose(
                outputs[name], expected[name][index], atol=0.05
            )


def test_maps_have_the_aspect_ratio_of_frames(image_model, frames, tmp_path):
    config = image_model.get_config()
    config["preprocessing"]["fit"] = "pad"
    AutoEncoder.from_config(config).save(tmp_path / "a.keras")
    scorer = load_frame_scorer(tmp_path / "a.keras", threshold=1)
    one = frames[1][0]
    height, width = one.pixels.shape[:2]
    rows, columns = scorer([one])["anomaly_map"].shape
    assert max(rows, columns) == 32
    assert columns / rows == pytest.approx(width / height, abs=0.1)
    assert width != height


def test_exports_are_scored_as_their_models(image_model, frames, tmp_path):
    from keras_sspcab.export import export_saved_model

    image_model.save(tmp_path / "a.keras")
    done = export_saved_model(image_model, tmp_path / "served", check=False)
    by_model = load_frame_scorer(tmp_path / "a.keras")
    by_export = load_frame_scorer(done.path)
    assert by_export.calibration == by_model.calibration
    one = frames[1][0]
    assert by_export([one])["anomaly_score"] == pytest.approx(
        by_model([one])["anomaly_score"], abs=1e-3
    )
    (done.path / "parity.json").unlink()
    with pytest.raises(ValueError, match="does not say its thresholds"):
        load_frame_scorer(done.path)
    assert load_frame_scorer(done.path, threshold=2).calibration.threshold == 2


@pytest.fixture(scope="module")
def video_model(tmp_path_factory):
    model = MNAD((3, 16, 16, 1), base_width=2, num_items=3)
    model.calibrate(moving_squares(8, size=16)[..., :1])
    path = tmp_path_factory.mktemp("mnad") / "mnad.keras"
    model.save(path)
    return model, path


def test_clips_are_scored_as_in_videos(video_model, frames):
    model, file = video_model
    scorer = load_frame_scorer(file, stride=2)
    assert scorer.span == 5
    path, taken = frames
    expected = {
        s.frame: s.outputs["anomaly_score"]
        for s in score_frames(model, [make_video(path)], stride=2)
    }
    # As a slow model sees them: two at once.
    found = {
        pair[-1].number: outputs["anomaly_score"]
        for pair in (taken[0:2], taken[2:4], taken[4:6])
        if (outputs := scorer(pair)) is not None
    }
    # No clip ends with those before.
    assert set(found) == {5}
    assert found[5] == pytest.approx(expected[5], rel=1e-3)


def test_clips_do_not_reach_over_a_gap(video_model, frames):
    scorer = load_frame_scorer(video_model[1])
    assert scorer(frames[1][:3]) is not None
    later = [
        dataclasses.replace(frame, connection=frame.connection + 1)
        for frame in frames[1][3:5]
    ]
    assert scorer(later) is None


def test_no_clip_reaches_from_one_video_into_the_next(
    video_model, frames, tmp_path
):
    scorer = load_frame_scorer(video_model[1])
    score, found = scorer.score, []

    def keep(frames):
        found.append(outputs := score(frames))
        return outputs

    scorer.score = keep
    watch_of(frames[0], tmp_path, scorer, fast=True).run()
    first = found[:]
    watch_of(frames[0], tmp_path, scorer, fast=True).run()
    assert [one is None for one in first] == [True] * 2 + [False] * 4
    assert found[6:8] == [None] * 2
    for one, again in zip(first[2:], found[8:], strict=True):
        assert again["anomaly_score"] == pytest.approx(one["anomaly_score"])


def test_what_cannot_watch_is_refused(tmp_path, image_model, monkeypatch):
    objects = types.SimpleNamespace(
        kind="objects", name="hf2vad", preprocessing=None
    )
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "load_detector", lambda path: objects)
        with pytest.raises(ValueError, match="looks at objects, which are cut"):
            load_frame_scorer("objects.keras")
    image_model.save(tmp_path / "a.keras")
    with pytest.raises(ValueError, match="`stride` argument is for hosts of v"):
        load_frame_scorer(tmp_path / "a.keras", stride=2)
    (tmp_path / "a.onnx").touch()
    with pytest.raises(ValueError, match="a SavedModel. Received: .*onnx"):
        load_frame_scorer(tmp_path / "a.onnx")
    raw = AutoEncoder((32, 32, 1), filters=(4, 4, 2))
    raw.save(tmp_path / "raw.keras")
    with pytest.raises(ValueError, match="not calibrated"):
        load_frame_scorer(tmp_path / "raw.keras")
    with pytest.raises(ValueError, match="`threshold`"):
        load_frame_scorer(tmp_path / "raw.keras", threshold=float("nan"))
    with pytest.raises(ValueError, match="keras-sspcab train"):
        load_frame_scorer(tmp_path / "nothing")
