import types

import numpy as np
import pytest

from keras_sspcab import files
from keras_sspcab.data import scan_video_folder
from keras_sspcab.hosts import ScoredFrame
from keras_sspcab.progress import Progress
from keras_sspcab.runs import outputs, video_evaluation
from keras_sspcab.runs.config import Config, DataConfig, EvaluationConfig
from keras_sspcab.runs.folder import RunFolder
from keras_sspcab.runs.regions import Regions
from tests.data.video_writing import noise, write_frames

# Of the clips, of which the first two frames are not scored.
LENGTH = 3


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    """Returns a function that evaluates videos with an object in each frame."""
    monkeypatch.setattr(
        video_evaluation, "regions_of", lambda model, source: Regions("objects")
    )

    def score(model, videos):
        for number, video in enumerate(videos):
            for frame in range(video.num_frames):
                outputs = {
                    "anomaly_score": np.float32(frame),
                    "raw_score": np.float32(frame),
                    "is_anomalous": np.bool_(frame > 3),
                    "anomaly_map": np.zeros((4, 4), "float32"),
                    "boxes": np.array([[2.0, 2, 5, 5]]),
                    "object_scores": np.array([float(frame)]),
                }
                yield ScoredFrame(number, frame, outputs)

    def evaluate(videos, **settings):
        source = types.SimpleNamespace(
            config=Config(
                data=DataConfig(clip_length=LENGTH),
                evaluation=EvaluationConfig(**settings),
            ),
            score_frames=score,
        )
        model = types.SimpleNamespace(
            video_score_outputs=(),
            score_video=lambda series: series["raw_score"] / 10,
        )
        folder = tmp_path / "run/predictions"
        folder.mkdir(parents=True)
        measured = video_evaluation.evaluate_videos(
            model, source, videos, "test", str(folder), Progress()
        )
        path = str(tmp_path / "run/metrics.json")
        files.write_json(path, measured.metrics)
        return measured

    return evaluate


def write_test_videos(root, lengths, num_abnormal=2):
    """Writes test videos whose object is abnormal in their last frames."""
    write_frames(root / "train/a", noise(3))
    for name, count in lengths.items():
        write_frames(root / "test" / name, noise(count))
        masks = np.zeros((count, 12, 16, 1), "uint8")
        masks[count - num_abnormal :, 2:6, 2:6] = 255
        write_frames(root / "ground_truth" / name, masks)
    return scan_video_folder(root).test


def test_videos_without_ground_truth_count_for_no_metric(tmp_path, evaluate):
    write_test_videos(tmp_path, {"a": 8, "b": 9})
    write_frames(tmp_path / "test/unknown", noise(9))
    measured = evaluate(scan_video_folder(tmp_path).test)
    # Its objects score as high as the abnormal ones of the others.
    assert measured.metrics["rbdc"] == 1.0
    assert measured.metrics["num_frames"] == 26
    assert "1 test videos have no ground truth" in measured.gaps[0]


def test_videos_shorter_than_a_clip_have_no_score(tmp_path, evaluate):
    videos = write_test_videos(tmp_path, {"a": 8, "short": 2})
    measured = evaluate(videos, smoothing="mean", smoothing_size=3.0)
    assert measured.gaps == ["1 test videos are shorter than a clip"]
    assert measured.metrics["num_test_videos"] == 2
    assert measured.metrics["per_video"]["short"] == {
        "num_frames": 2,
        "num_scored_frames": 0,
        "num_normal_frames": 0,
        "num_abnormal_frames": 0,
    }
    # Its two abnormal boxes are not found.
    assert measured.metrics["rbdc"] == 0.5
    frames = outputs.read_frame_scores(RunFolder(str(tmp_path / "run")))
    assert [*frames] == ["a"]


@pytest.mark.parametrize(
    ("num_abnormal", "kind"), [(0, "abnormal"), (8, "normal")]
)
@pytest.mark.parametrize("has_unknown", [False, True])
def test_frames_of_one_kind_are_told(
    tmp_path, evaluate, num_abnormal, kind, has_unknown
):
    write_test_videos(tmp_path, {"a": 8}, num_abnormal)
    if has_unknown:
        write_frames(tmp_path / "test/unknown", noise(9))
    gaps = evaluate(scan_video_folder(tmp_path).test).gaps
    assert (
        gaps[-1] == f"No test frame is {kind}: there is nothing to tell apart"
    )
    assert len(gaps) == 1 + has_unknown


def test_no_video_need_be_as_long_as_a_clip(tmp_path, evaluate):
    videos = write_test_videos(tmp_path, {"short": 2})
    measured = evaluate(videos, smoothing="mean", smoothing_size=3.0)
    assert measured.metrics["num_scored_frames"] == 0
    assert len(measured.gaps) == 2
