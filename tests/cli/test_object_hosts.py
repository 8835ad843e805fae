"""The commands on objects of videos: train, evaluate, predict, compare."""

import contextlib
import json
import shutil
import warnings

import numpy as np
import pytest

pytest.importorskip("cv2")

from keras_sspcab.data.video import scan_video_folder
from keras_sspcab.export import runs
from keras_sspcab.hosts import score_objects
from keras_sspcab.metrics import rbdc_tbdc, read_detections, read_tracks
from keras_sspcab.runs import RunFolder, load_detector
from keras_sspcab.runs.sources import source_of
from tests.cli.cells import read_csv
from tests.cli.test_train import assert_same_model
from tests.data.video_writing import write_frames

HEIGHT, WIDTH = 40, 64
TRAINING = [
    "--model=background_agnostic",
    "--epochs=1",
    "--batch-size=8",
    "--image-size=32",
    "--set=model.base_width=2",
    "--set=objects.min_area=20",
    "--set=evaluation.smoothing_size=1.0",
]


def moving(count, start, abnormal=()):
    """A small square walks; in abnormal frames a large one runs as well."""
    frames = np.full((count, HEIGHT, WIDTH, 1), 60, "uint8")
    masks = np.zeros((count, HEIGHT, WIDTH, 1), "uint8")
    for i in range(count):
        left = (start + 2 * i) % (WIDTH - 8)
        frames[i, 6:12, left : left + 6] = 200
        if i in abnormal:
            left = (6 * i) % (WIDTH - 14)
            frames[i, 20:32, left : left + 12] = 240
            masks[i, 20:32, left : left + 12] = 255
    return frames, masks


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for number in range(3):
        write_frames(root / f"train/{number}", moving(8, 3 * number)[0])
    for name, abnormal in (("x", range(5, 9)), ("y", ())):
        frames, masks = moving(10, 5, abnormal)
        write_frames(root / "test" / name, frames)
        write_frames(root / "ground_truth" / name, masks)
    # Nothing moves at all.
    write_frames(root / "test/z", np.full((4, HEIGHT, WIDTH, 1), 60, "uint8"))
    write_frames(
        root / "ground_truth/z", np.zeros((4, HEIGHT, WIDTH, 1), "uint8")
    )
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory, videos, invoke):
    run = tmp_path_factory.mktemp("run") / "run"
    invoke("train", "--data", videos, "--run", run, *TRAINING)
    invoke("evaluate", run)
    return run


def cubes_of(run, videos):
    """The files of objects of the test videos, cut out already."""
    folder = RunFolder(str(run))
    source = source_of(folder.config, folder)
    return source.cut_out(scan_video_folder(videos).test)


def unfinished(run, tmp_path, *missing):
    """A copy of a run, as if it had been killed before its last stage."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for name in missing:
        (copy / name).unlink()
    RunFolder(str(copy)).update_record(state="training")
    return copy


@pytest.mark.slow
def test_each_stage_leaves_its_history(run):
    rows = read_csv(run / "history.csv")
    stages = ("autoencoders", "adversarial", "classifiers")
    for number, (row, stage) in enumerate(zip(rows, stages, strict=True), 1):
        assert row["epoch"] == row["stage"] == str(number)
        (own,) = read_csv(run / f"history-{stage}.csv")
        assert row["loss"] == own["loss"]
        assert (run / f"checkpoint-{stage}.npz").is_file()
        assert (run / "logs" / stage / "train").is_dir()


def test_frames_are_scored_by_their_objects(run, videos):
    rows = read_csv(run / "predictions/scores.csv")
    test = scan_video_folder(videos).test
    model = load_detector(str(run))
    scored = list(score_objects(model, cubes_of(run, videos), batch_size=3))
    assert [(row["video"], int(row["frame"])) for row in rows] == [
        (test[s.video].name, s.frame) for s in scored
    ]
    np.testing.assert_allclose(
        [float(row["anomaly_score"]) for row in rows],
        [float(s.outputs["anomaly_score"]) for s in scored],
        rtol=1e-3,
        atol=1e-3,
    )
    # The still video has no object.
    still = [row for row in rows if row["video"] == "z"]
    assert len(still) == 4
    assert {float(row["raw_score"]) for row in still} == {0.0}


def test_regions_are_the_objects(run, videos):
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))
    detections = read_detections(run / "predictions/detections")
    files = cubes_of(run, videos)
    assert len(detections["frame"]) == sum(file.num_objects for file in files)
    np.testing.assert_allclose(
        detections["x_max"],
        np.concatenate([f.read("boxes")[:, 2] for f in files]),
    )
    again = rbdc_tbdc(detections, read_tracks(run / "predictions/tracks"), 24)
    assert metrics["rbdc"] == pytest.approx(again.rbdc, abs=1e-4)
    assert metrics["tbdc"] == pytest.approx(again.tbdc, abs=1e-4)
    assert metrics["conventions"]["regions"].startswith("objects that move")
    assert metrics["conventions"]["frames_dropped"] == 0
    assert metrics["num_scored_frames"] == 24


def test_report_and_predict(run, videos, invoke, tmp_path):
    invoke("report", run)
    assert (run / "report.html").stat().st_size > 10_000
    invoke("predict", run, "--video", videos / "test/x", "--results", tmp_path)
    rows = read_csv(tmp_path / "x-scores.csv")
    expected = [
        row
        for row in read_csv(run / "predictions/scores.csv")
        if row["video"] == "x"
    ]
    np.testing.assert_allclose(
        [float(row["anomaly_score"]) for row in rows],
        [float(row["anomaly_score"]) for row in expected],
        rtol=1e-3,
        atol=1e-3,
    )
    assert (tmp_path / "x-annotated.mp4").stat().st_size > 1000


def test_thresholds_are_measured_anew(run, tmp_path, invoke):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    # Of the same name as a video that was trained on.
    write_frames(tmp_path / "new/0", moving(20, 1)[0])
    first = load_detector(str(copy)).calibration
    invoke("calibrate", copy, "--data", tmp_path / "new", "--decision=either")
    new = load_detector(str(copy)).calibration
    assert new.num_images > first.num_images
    assert new.decision == "either"
    invoke("calibrate", copy, "--restore=training")
    assert load_detector(str(copy)).calibration == first


@pytest.mark.slow
def test_resumed_run_is_that_of_one_go(run, invoke, tmp_path):
    missing = ("checkpoint-classifiers.npz", "model.keras")
    copy = unfinished(run, tmp_path, *missing)
    before = (copy / "checkpoint-adversarial.npz").read_bytes()
    invoke("train", "--run", copy, "--resume")
    assert (copy / "checkpoint-adversarial.npz").read_bytes() == before
    assert_same_model(run, copy)
    # Stages that are done cannot be trained further.
    again = invoke("train", "--run", copy, "--resume")
    assert "is finished: there is nothing to continue" in again.stdout
    more = invoke("train", "--run", copy, "--resume", "--epochs=2", code=2)
    assert "training.epochs" in more.output


def test_nothing_moves(tmp_path, invoke):
    still = np.full((6, HEIGHT, WIDTH, 1), 60, "uint8")
    for number in range(3):
        write_frames(tmp_path / f"videos/train/{number}", still)
    options = ["--data", tmp_path / "videos", "--run", tmp_path / "run"]
    result = invoke("train", *options, *TRAINING, code=2)
    assert "No object was found" in result.output


# === HF2-VAD ===

HF2VAD = [
    "--model=hf2vad",
    "--batch-size=8",
    "--image-size=16",
    "--channels=1",
    "--set=data.clip_length=3",
    "--set=data.step=2",
    "--set=model.root_width=2",
    "--set=model.base_width=2",
    "--set=model.num_slots=8",
    "--set=objects.min_area=20",
    "--set=evaluation.smoothing_size=3",
]


@contextlib.contextmanager
def eagerly():
    """Graphs of three stages take a minute to make, a few steps seconds."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        with warnings.catch_warnings():
            # Functions of tf.data stay graphs.
            warnings.filterwarnings("ignore", ".*tf.data functions.*")
            yield
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def hf2vad(tmp_path_factory, videos, invoke):
    run = tmp_path_factory.mktemp("run") / "hf2vad"
    with eagerly():
        invoke("train", "--data", videos, "--run", run, "--epochs=1", *HF2VAD)
    invoke("evaluate", run)
    return run


@pytest.mark.slow
def test_hf2vad_end_to_end(hf2vad, videos, invoke):
    rows = read_csv(hf2vad / "history.csv")
    assert [row["stage"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["flow_loss"]
    assert not rows[0]["prediction_loss"]
    assert rows[1]["prediction_loss"]
    assert float(rows[2]["sspcab_loss"]) > 0
    metrics = json.loads((hf2vad / "metrics.json").read_text("utf-8"))
    # The first frames are not scored, as the paper has it.
    assert metrics["conventions"]["frames_dropped"] == 2
    assert metrics["num_scored_frames"] == 24 - 3 * 2
    assert metrics["conventions"]["smoothing"] == "median 3"
    rows = read_csv(hf2vad / "predictions/scores.csv")
    empty = load_detector(str(hf2vad)).empty_score
    raw = [float(row["raw_score"]) for row in rows if row["video"] == "z"]
    np.testing.assert_allclose(raw, empty, rtol=1e-5)
    invoke("evaluate", hf2vad, "--as-published")
    for video in "xyz":
        of_video = [
            row
            for row in read_csv(hf2vad / "predictions/scores.csv")
            if row["video"] == video
        ]
        raw = [float(row["raw_score"]) for row in of_video]
        padded = np.pad(raw, 8)
        np.testing.assert_allclose(
            [float(row["video_score"]) for row in of_video],
            [np.median(padded[i : i + 17]) for i in range(len(raw))],
        )
    # Errors are measured on the training objects.
    layer = load_detector(str(hf2vad)).get_layer("object_score")
    assert np.all(np.asarray(layer.get_weights()[0]) != 0)


@pytest.mark.slow
def test_export_of_a_host_and_its_networks(hf2vad, invoke, tmp_path):
    pytest.importorskip("onnxruntime")
    options = ("--to=onnx", "--networks", "--out", tmp_path)
    result = invoke("export", hf2vad, *options)
    for text in ("memory_autoencoder", "vunet", "relative"):
        assert text in result.output
    assert (tmp_path / "onnx/hf2vad.onnx").is_file()
    for name in ("memory_autoencoder", "vunet"):
        path = tmp_path / f"onnx-networks/{name}.onnx.parity.json"
        assert json.loads(path.read_text("utf-8"))["parity"]["passes"]


def test_networks_of_each_precision_have_a_folder(
    hf2vad, monkeypatch, tmp_path
):
    paths = []
    monkeypatch.setattr(
        runs, "export_networks", lambda _, path, *a, **k: paths.append(path)
    )
    monkeypatch.setattr(runs.RunExporter, "_options", lambda *_: {})
    exporter = runs.RunExporter(str(hf2vad), destination=tmp_path)
    for precision in ("float32", "int8"):
        exporter.export_networks("tflite", precision)
    names = ["tflite-networks", "tflite-networks-int8"]
    assert paths == [tmp_path / name for name in names]


def test_single_networks_are_of_hosts_of_objects(trained, invoke):
    result = invoke("export", trained, "--to=onnx", "--networks", code=2)
    assert "--networks is for hosts that look at objects" in result.output
