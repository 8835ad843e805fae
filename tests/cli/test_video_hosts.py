"""The commands on videos: train, evaluate, report and export."""

import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from keras_sspcab.data.video import (
    clip_dataset,
    scan_video_folder,
    tracks_from_masks,
)
from keras_sspcab.hosts import score_frames
from keras_sspcab.metrics import (
    rbdc_tbdc,
    read_detections,
    read_tracks,
    smooth_frames,
)
from keras_sspcab.runs import load_detector
from tests.cli.cells import read_csv
from tests.data.video_writing import write_frames

SIZE = 32
TRAINING = [
    "--model=mnad",
    f"--image-size={SIZE}",
    "--channels=1",
    "--epochs=1",
    "--batch-size=4",
    "--set=model.base_width=2",
    "--set=data.clip_length=3",
]


def squares(count, start, abnormal=()):
    """A dim square that moves; in abnormal frames a bright one appears."""
    rng = np.random.default_rng(start)
    frames = rng.integers(40, 60, (count, SIZE, SIZE, 1), "uint8")
    masks = np.zeros((count, SIZE, SIZE, 1), "uint8")
    for i in range(count):
        left = (start + i) % (SIZE - 6)
        frames[i, 4:10, left : left + 6] = 120
        if i in abnormal:
            frames[i, 16:26, 10:20] = 255
            masks[i, 16:26, 10:20] = 255
    return frames, masks


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for number in range(3):
        write_frames(root / f"train/{number}", squares(10, number)[0])
    for name, abnormal in (("x", range(6, 10)), ("y", ())):
        frames, masks = squares(12, 5, abnormal)
        write_frames(root / "test" / name, frames)
        write_frames(root / "ground_truth" / name, masks)
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory, videos, invoke):
    run = tmp_path_factory.mktemp("run") / "run"
    invoke("train", "--data", videos, "--run", run, *TRAINING)
    invoke("evaluate", run)
    return run


def read_scores(run):
    return read_csv(run / "predictions/scores.csv")


@pytest.mark.slow
def test_scores_are_those_of_the_model(run, videos):
    rows = read_scores(run)
    test = scan_video_folder(videos).test
    scored = list(score_frames(load_detector(str(run)), test))
    assert [(row["video"], int(row["frame"])) for row in rows] == [
        (test[s.video].name, s.frame) for s in scored
    ]
    assert len(rows) == 2 * (12 - 2)
    np.testing.assert_allclose(
        [float(row["anomaly_score"]) for row in rows],
        [float(s.outputs["anomaly_score"]) for s in scored],
        rtol=1e-4,
        atol=1e-4,
    )
    labels = [int(r["label"]) for r in rows if r["video"] == "x"]
    assert labels == [int(6 <= frame < 10) for frame in range(2, 12)]
    assert all(row["label"] == "0" for row in rows if row["video"] == "y")


def test_metrics_follow_from_the_files(run, videos):
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))
    rows = read_scores(run)
    labels = [int(row["label"]) for row in rows]
    for name, column in (
        ("micro_auc", "video_score"),
        ("streaming_micro_auc", "anomaly_score"),
    ):
        scores = [float(row[column]) for row in rows]
        assert metrics[name] == pytest.approx(roc_auc_score(labels, scores))
    macro = []
    for video in "xy":
        own = [row for row in rows if row["video"] == video]
        scores = np.array([float(row["video_score"]) for row in own])
        scores = (scores - scores.min()) / np.ptp(scores)
        truth = [int(row["label"]) for row in own]
        macro.append(roc_auc_score([0, *truth, 1], [0.0, *scores, 1.0]))
    assert metrics["macro_auc"] == pytest.approx(np.mean(macro))
    assert metrics["num_frames"] == 24
    assert metrics["num_scored_frames"] == 20
    assert metrics["num_abnormal_frames"] == 4
    assert "auc" not in metrics["per_video"]["y"]
    assert metrics["conventions"]["frames_dropped"] == 2
    assert metrics["conventions"]["tracks"] == "masks"
    detections = read_detections(run / "predictions/detections")
    assert detections["frame"].min() >= 2
    again = rbdc_tbdc(
        detections, tracks_from_masks(scan_video_folder(videos).test), 24
    )
    assert (metrics["rbdc"], metrics["tbdc"]) == (again.rbdc, again.tbdc)
    tracks = read_tracks(run / "predictions/tracks")
    np.testing.assert_array_equal(tracks["frame"], range(6, 10))
    assert set(tracks["x_max"]) == {19}
    # The bright square is easy.
    assert metrics["streaming_micro_auc"] > 0.9
    assert metrics["rbdc"] > 0.5
    assert metrics["tbdc"] > 0.5


def test_report_and_export(run, invoke):
    invoke("report", run)
    page = (run / "report.html").read_text("utf-8")
    assert "RBDC" in page
    key_frames = read_csv(run / "predictions/key_frames.csv")
    assert {row["video"] for row in key_frames} == {"x", "y"}
    for row in key_frames:
        assert (run / "predictions" / row["image_file"]).is_file()
    result = invoke("export", run, "--to", "savedmodel")
    assert "savedmodel" in result.output


def test_evaluation_can_be_set(run, tmp_path, invoke):
    run = shutil.copytree(run, tmp_path / "run")
    before = read_scores(run)
    scores = {
        video: np.array(
            [float(r["video_score"]) for r in before if r["video"] == video]
        )
        for video in "xy"
    }
    arguments = ("--set", "evaluation.smoothing=median")
    size = ("--set", "evaluation.smoothing_size=3")
    invoke("evaluate", run, *arguments, *size)
    after = [float(row["video_score"]) for row in read_scores(run)]
    smooth = smooth_frames(scores, "median", 3)
    np.testing.assert_allclose(after, [*smooth["x"], *smooth["y"]])
    invoke("evaluate", run, "--set", "evaluation.update_memory=true")
    invoke("evaluate", run, "--set", "evaluation.normalization=none")
    for row in read_scores(run):
        assert row["video_score"] == row["anomaly_score"]


@pytest.mark.slow
def test_evaluation_as_published(run, videos, tmp_path, invoke, monkeypatch):
    # What has hardly been trained learns from every frame.
    papers = {"prediction": (0.1, 0.6, 1.0)}
    monkeypatch.setattr("keras_sspcab.applications.mnad._PAPER", papers)
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    model = load_detector(str(copy))
    published = ("evaluate", copy, "--as-published")
    clips = [
        np.concatenate([clip.numpy() for clip in clip_dataset([v], 3, SIZE, 1)])
        for v in scan_video_folder(videos).test
    ]
    outputs = model.predict_online(np.concatenate(clips))
    assert outputs["updated"].all()
    expected = []
    for rows in (slice(0, 10), slice(10, 20)):
        psnr, distance = (
            (x - x.min()) / np.ptp(x)
            for x in (outputs["psnr"][rows], outputs["compactness"][rows])
        )
        expected += [*(0.6 * (1 - psnr) + 0.4 * distance)]
    result = invoke(*published)
    scores = [float(row["video_score"]) for row in read_scores(copy)]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    metrics = json.loads((copy / "metrics.json").read_text("utf-8"))
    assert metrics["conventions"]["update_memory"] is True
    assert "the memory learns" in metrics["as_published"]
    assert "As published: PSNR and distance" in result.output
    invoke("report", copy)
    page = (copy / "report.html").read_text("utf-8")
    assert "As published: PSNR and distance" in page
    # What contradicts it is refused; all else may be set.
    both = (*published, "--set", "evaluation.smoothing=median")
    assert "--as-published" in invoke(*both, code=2).output
    invoke(*published, "--set", "evaluation.single_class=skip")
    invoke("evaluate", copy)
    usual = [float(row["video_score"]) for row in read_scores(copy)]
    assert np.abs(np.subtract(scores, usual)).max() > 0.01
    metrics = json.loads((copy / "metrics.json").read_text("utf-8"))
    assert "as_published" not in metrics
    assert metrics["conventions"]["update_memory"] is False


def test_thresholds_are_measured_anew(run, tmp_path, invoke):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    # Of the same name as a video that was trained on.
    write_frames(tmp_path / "new/0", squares(30, 9)[0])
    first = load_detector(str(copy)).calibration
    result = invoke("calibrate", copy, "--data", tmp_path / "new")
    new = load_detector(str(copy)).calibration
    assert new.num_images == 28
    assert new.score_mean != first.score_mean
    assert "less sure, as frames of one video are alike" in result.stdout
    invoke("calibrate", copy)
    again = load_detector(str(copy)).calibration
    assert again.threshold == pytest.approx(first.threshold, rel=1e-4)
