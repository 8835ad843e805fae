"""The files that an evaluation leaves, written and read back."""

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from keras_sspcab.metrics import Curve
from keras_sspcab.runs import RunFolder, outputs

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def run(tmp_path):
    """A run that has been evaluated on nothing yet."""
    (tmp_path / "predictions").mkdir()
    (tmp_path / "config.toml").touch()
    (tmp_path / "metrics.json").write_text("{}")
    return RunFolder(str(tmp_path))


def copy_of(kind, tmp_path):
    return RunFolder(shutil.copytree(FIXTURES / f"{kind}_run", tmp_path / "r"))


def test_images_are_read_as_written(run):
    folder = run.file("predictions")
    rows = [
        outputs.ImageScore("a.png", 0, "good", -0.5, False, 1e-7),
        outputs.ImageScore("b, c.png", 1, "hole", 1 / 3, True, 2.0, "m.png"),
        outputs.ImageScore(
            "d.png", None, "", 2.0, True, 3.0, map_path=f"{folder}/d.npy"
        ),
    ]
    outputs.write_map(f"{folder}/d.npy", np.array([[1e9, 0.25]]))
    outputs.write_rows(folder, outputs.ImageScore, rows)
    assert outputs.read_image_scores(run) == rows
    np.testing.assert_array_equal(rows[2].load_map(), [[65504.0, 0.25]])
    assert rows[0].load_map() is None


def test_frames_are_read_as_written(run):
    rows = [
        outputs.FrameScore("x", 2, 1, 0.1, True, 0.2, 0.3),
        outputs.FrameScore("x", 5, 0, 0.1, False, 0.2, 0.3),
        outputs.FrameScore("y", 0, None, -1e-9, False, 0.2, 0.3),
    ]
    outputs.write_rows(run.file("predictions"), outputs.FrameScore, rows)
    frames = outputs.read_frame_scores(run)
    assert frames == {"x": rows[:2], "y": rows[2:]}


def test_key_frames_are_read_as_written(run):
    folder = run.file("predictions")
    rows = [
        outputs.KeyFrame("x", 2, 1, 0.5, False, f"{folder}/a.png", None, None),
        outputs.KeyFrame(
            "x", 4, 0, 9.0, True, f"{folder}/b.png", None, f"{folder}/m.png"
        ),
    ]
    assert outputs.read_key_frames(run) is None
    outputs.write_rows(folder, outputs.KeyFrame, rows)
    assert outputs.read_key_frames(run) == rows
    assert [row.outcome for row in rows] == ["missed", "false_alarm"]
    path = Path(folder, "key_frames.csv")
    path.write_text(path.read_text().replace("missed", "passed"))
    with pytest.raises(ValueError, match="line 2, outcome: 'passed', where"):
        outputs.read_key_frames(run)


def test_curves_are_read_as_written(run):
    assert outputs.read_curves(run) is None
    curve = Curve(np.array([0.0, 1 / 3, 1.0]), np.array([0.0, 0.7, 1.0]))
    outputs.write_curves(run.file("predictions"), {"pro": curve})
    (read,) = outputs.read_curves(run).values()
    np.testing.assert_array_equal(read, curve)


def test_runs_of_earlier_versions_are_read_and_written_alike(tmp_path):
    images = copy_of("image", tmp_path / "images")
    rows = outputs.read_image_scores(images)
    assert len(rows) == 6
    assert rows[3].load_map().shape == (32, 32)
    assert outputs.read_curves(images) is None
    videos = copy_of("video", tmp_path / "videos")
    frames = outputs.read_frame_scores(videos)
    assert list(frames) == ["x", "y"]
    assert len(outputs.read_key_frames(videos)) == 4
    for folder, kind, values in (
        (images, outputs.ImageScore, rows),
        (videos, outputs.FrameScore, [*frames["x"], *frames["y"]]),
    ):
        path = Path(folder.file("predictions/scores.csv"))
        before = path.read_bytes()
        outputs.write_rows(folder.file("predictions"), kind, values)
        assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("anomaly_score", "score", "no column anomaly_score"),
        ("0.9287964701652527", "nan", "line 3, anomaly_score: "),
        (",0,good", ",2,good", "line 2, label: "),
        (",1,0.162", ",maybe,0.162", "line 5, is_anomalous: "),
        ("images/test/spot/000.png,1", "spot", "line 5 has another number"),
    ],
)
def test_broken_rows_are_named(tmp_path, old, new, message):
    run = copy_of("image", tmp_path)
    path = Path(run.file("predictions/scores.csv"))
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=r"scores\.csv is broken") as caught:
        outputs.read_image_scores(run)
    assert message in str(caught.value)
    assert "keras-sspcab evaluate" in str(caught.value)


def test_frames_out_of_order_are_named(run):
    row = outputs.FrameScore("x", 2, 1, 0.1, True, 0.2, 0.3)
    other = dataclasses.replace(row, video="y")
    for rows, message in (
        ([row, row], "frame 2 of 'x' follows frame 2"),
        ([row, other, dataclasses.replace(row, frame=3)], "in one piece"),
        ([dataclasses.replace(row, video="")], "line 2, video: "),
    ):
        outputs.write_rows(run.file("predictions"), outputs.FrameScore, rows)
        with pytest.raises(ValueError, match=message):
            outputs.read_frame_scores(run)


def test_rows_that_do_not_fit_the_metrics_are_named(tmp_path):
    for kind, read, key in (
        ("image", outputs.read_image_scores, "num_test_images"),
        ("video", outputs.read_frame_scores, "num_scored_frames"),
    ):
        run = copy_of(kind, tmp_path / kind)
        path = Path(run.file("metrics.json"))
        metrics = json.loads(path.read_text())
        path.write_text(json.dumps({**metrics, key: 99}))
        with pytest.raises(ValueError, match=r"where metrics\.json counts 99"):
            read(run)


@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        ("metrics.json", "{", outputs.read_metrics),
        ("metrics.json", "[]", outputs.read_metrics),
        ("metrics.json", "[" * 100_000, outputs.read_metrics),
        ("predictions/curves.json", '{"pro": 1}', outputs.read_curves),
        (
            "predictions/curves.json",
            '{"pro": {"x": [0, 1], "y": [1]}}',
            outputs.read_curves,
        ),
    ],
)
def test_broken_json_is_named(run, name, content, read):
    Path(run.file(name)).write_text(content)
    with pytest.raises(ValueError, match=f"{name} is broken"):
        read(run)


@pytest.mark.parametrize(
    ("kind", "name", "read"),
    [
        ("image", "predictions/scores.csv", outputs.read_image_scores),
        ("image", "metrics.json", outputs.read_metrics),
        ("video", "predictions/scores.csv", outputs.read_frame_scores),
        ("video", "predictions/key_frames.csv", outputs.read_key_frames),
    ],
)
def test_files_that_were_cut_off_are_named(tmp_path, kind, name, read):
    run = copy_of(kind, tmp_path)
    path = Path(run.file(name))
    content = path.read_bytes()
    ends = range(len(content) - (name == "metrics.json"))
    for end in sorted({*ends[:: max(1, len(ends) // 100)], ends[-1]}):
        if "key" in name and content[:end].endswith(b"\n"):
            continue  # nobody counts key frames
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match=f"{path.name} is broken"):
            read(run)


def test_damaged_maps_are_named_or_maps(tmp_path):
    path = tmp_path / "map.npy"
    outputs.write_map(str(path), np.ones((4, 4)))
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for i in range(len(content) + 300):
        damaged = bytearray(content[:i])
        if i >= len(content):
            damaged[rng.integers(len(content))] = rng.integers(256)
        path.write_bytes(damaged)
        if i < len(content):
            with pytest.raises(ValueError, match=r"map\.npy is broken"):
                outputs.read_map(str(path))
            continue
        with contextlib.suppress(ValueError):  # nothing else
            assert outputs.read_map(str(path)).ndim == 2


@pytest.mark.parametrize("values", [[1.0], [[float("nan")]]])
def test_broken_maps_are_named(tmp_path, values):
    np.save(tmp_path / "map.npy", values)
    with pytest.raises(ValueError, match=r"map\.npy is broken"):
        outputs.read_map(str(tmp_path / "map.npy"))
