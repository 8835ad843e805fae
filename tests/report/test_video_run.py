import pytest

from keras_sspcab.report import save_examples_figure, write_report
from keras_sspcab.report.run_data import read_run
from keras_sspcab.report.video_run import read_video_run
from tests.report.video_run_folder import VIDEOS, scored_video, write_video_run

HEADER = "video,frame,label,anomaly_score,is_anomalous,raw_score,video_score\n"


@pytest.fixture
def run_folder(tmp_path):
    return write_video_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("config.toml", "keras-sspcab train"),
        ("predictions/scores.csv", "keras-sspcab evaluate"),
    ],
)
def test_missing_files_are_named(run_folder, name, command):
    (run_folder / name).unlink()
    with pytest.raises(ValueError, match=command) as error:
        write_report(run_folder)
    assert name in str(error.value)


KEY_HEADER = (
    "video,frame,label,outcome,anomaly_score,is_anomalous,image_file,map_file,"
    "mask_file\n"
)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("scores.csv", "video,frame\n", "no column anomaly_score, is_anom"),
        ("scores.csv", HEADER + "a,0,0,inf,0,0,0\n",
         "line 2: the anomaly_score is inf"),
        ("scores.csv", HEADER + "a,0,0,1,0,0,nan\n",
         "line 2: the video_score is nan"),
        ("scores.csv", HEADER + "a,0,0,1,0,0,0\na,0,0,1,0,0,0\n",
         "line 3: frame 0 follows frame 0"),
        ("scores.csv", HEADER + "a,0,0,1,0,0,0\nb,0,0,1,0,0,0\na,1,0,1,0,0,0\n",
         "line 4: video 'a' is not in one piece"),
        ("scores.csv", HEADER + ",0,0,1,0,0,0\n", "line 2: .*no name"),
        ("scores.csv", HEADER + "a,-1,0,1,0,0,0\n", "line 2: the frame is -1"),
        ("scores.csv", HEADER + "a,x,0,1,0,0,0\n", "line 2: .*'x'"),
        ("scores.csv", HEADER + "a,0,2,1,0,0,0\n",
         "line 2: the label must be 0, 1 or empty, not 2"),
        ("scores.csv", HEADER + "a,0,0,1,maybe,0,0\n",
         "line 2: is_anomalous must be 0 or 1, not 'maybe'"),
        ("scores.csv", HEADER + "a,0,0\n", "scores.csv is broken: line 2"),
        ("scores.csv", HEADER + "walk,0,0,1,0,0,0\n",
         "1 frames of all videos, where metrics.json counts 28"),
        ("key_frames.csv", "video\n", "key_frames.csv is broken: no column"),
        ("key_frames.csv", KEY_HEADER + "walk,8,1,missed,6,1,a.png,,\n",
         "line 2: the outcome is 'missed', .* make it 'found'"),
        ("key_frames.csv", KEY_HEADER + "walk,99,1,found,6,1,a.png,,\n",
         "line 2: frame 99 of video 'walk' is not in scores.csv"),
        ("key_frames.csv", KEY_HEADER + "other,2,1,found,6,1,a.png,,\n",
         "line 2: frame 2 of video 'other' is not in scores.csv"),
        ("key_frames/000.npy", "", "000.npy is broken"),
        ("key_frames/000.npy", "zzz", "000.npy is broken"),
    ],
)  # fmt: skip
def test_broken_files_are_named_and_the_old_page_stays(
    run_folder, name, content, message
):
    (run_folder / "report.html").write_text("old")
    (run_folder / "predictions" / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        write_report(run_folder)
    assert f"`keras-sspcab evaluate {run_folder}`" in str(error.value)
    assert (run_folder / "report.html").read_text() == "old"
    assert not list(run_folder.glob(".*"))


def test_counts_of_each_video_are_checked(run_folder):
    path = run_folder / "metrics.json"
    content = path.read_text("utf-8").replace(
        '"num_frames": 12, "num_scored_frames": 10',
        '"num_frames": 12, "num_scored_frames": 9',
    )
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="10 frames of walk, .* counts 9"):
        write_report(run_folder)


def test_functions_for_images_refuse_videos(run_folder):
    with pytest.raises(ValueError, match="run of videos.*keras-sspcab report"):
        read_run(run_folder)
    with pytest.raises(ValueError, match="run of videos"):
        save_examples_figure(run_folder, run_folder / "examples.png")
    assert not (run_folder / "examples.png").exists()


def test_the_content_is_read(run_folder):
    run = read_video_run(run_folder)
    assert [video.name for video in run.videos] == list(VIDEOS)
    walk = run.videos[0]
    assert (walk.num_frames, walk.auc) == (12, 1.0)
    assert walk.numbers.tolist() == list(range(2, 12))
    assert walk.scores.tolist() == VIDEOS["walk"][1]
    assert walk.intervals_of_truth() == [(5, 8)]
    assert walk.intervals_of_alarm() == [(5, 6), (8, 8)]
    key_frame = run.key_frames[1]
    assert (key_frame.video, key_frame.frame) == ("walk", 8)
    assert key_frame.is_right
    assert key_frame.load_map().shape == (24, 32)


def test_intervals_are_consecutive_rows():
    labels = [1, 0, 1, 1, None, 1, 0, 1]
    assert scored_video(labels, [0.0] * 8).intervals_of_truth() == [
        (4, 4),
        (6, 7),
        (9, 9),
        (11, 11),
    ]
    assert scored_video([0, 0], [0, 0]).intervals_of_truth() == []
