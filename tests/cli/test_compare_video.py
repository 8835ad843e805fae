import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_sspcab.compare import cell as cells
from keras_sspcab.runs import RunFolder
from tests.cli.cells import finish, read_csv, run_here

SETTINGS = [
    "--set=data.image_size=32",
    "--set=data.channels=1",
    "--set=data.clip_length=3",
    "--set=data.cache=none",
    "--set=model.base_width=2",
    "--set=training.epochs=1",
]


def write_frames(folder, count, has_square=False):
    """Writes a bar that moves right; with a square in the second half."""
    folder.mkdir(parents=True)
    for number in range(count):
        frame = np.full((32, 32), 60, "uint8")
        frame[8:16, number : number + 6] = 200
        mask = np.zeros((32, 32), "uint8")
        if has_square and number >= count // 2:
            frame[20:28, 20:28] = 255
            mask[20:28, 20:28] = 255
        Image.fromarray(frame).save(folder / f"{number:03d}.png")
        if has_square:
            name = folder.parents[1] / "ground_truth" / folder.name
            name.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(name / f"{number:03d}.png")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Two data sets: 2 and 3 training videos, one test video of 8 frames."""
    root = tmp_path_factory.mktemp("videos") / "sets"
    for name, train in (("Avenue", 2), ("ped2", 3)):
        for i in range(train):
            write_frames(root / name / "training/frames" / f"{i:02d}", 6)
        write_frames(root / name / "testing/frames" / "01", 8, True)
    return root


@pytest.fixture(autouse=True)
def _cells_cost_nothing(monkeypatch):
    monkeypatch.setattr(cells, "run_in_own_process", finish)


@pytest.fixture
def arguments(videos, tmp_path):
    """The options of a comparison over two hosts, data sets and seeds."""
    return [
        "compare",
        "--models=future_frame,mnad",
        f"--data={videos}",
        "--seeds=2",
        f"--out={tmp_path / 'out'}",
        *SETTINGS,
    ]


def section(text, title):
    """Returns a part of a page, from its title to the next one."""
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


# === Cells that cost nothing ===


def test_hosts_of_videos_are_compared_over_data_sets(
    arguments, invoke, tmp_path, videos
):
    result = invoke(*arguments)
    assert "16 cells: 16 to do" in result.stdout
    assert "mean of all data sets" in result.stdout
    text = (tmp_path / "out" / "comparison.md").read_text()
    results = section(text, "Results").splitlines()
    assert (
        "| host | Avenue: micro AUC | Avenue: macro AUC | Avenue: RBDC "
        "| ped2: micro AUC | ped2: macro AUC | ped2: RBDC |"
    ) in results
    assert (
        "| mnad + SSPCAB | 80.0 ± 0.0 | 50.5 ± 0.7 | 25.0 ± 0.0 "
        "| 80.0 ± 0.0 | 50.5 ± 0.7 | 25.0 ± 0.0 |"
    ) in results
    assert "No run has given: TBDC." in results
    published = section(text, "Published results")
    assert "| future_frame + SSPCAB | 87.3 | 84.5 | 20.13 |" in published
    assert "| mnad | 82.8 | 86.8 | - |" in published
    assert "ped2" not in published
    assert (
        "| mnad | micro AUC | on - off | +5.0 "
        "| no interval: 2 seeds, at least 5 needed | - | 4, of 2 seeds |"
    ) in section(text, "Paired differences")
    conditions = section(text, "Conditions")
    assert (
        "- Videos of ped2: 3 normal ones to train and calibrate on; 4 normal "
        "and 4 abnormal frames to test\n"
    ) in conditions
    assert "- Frames without a score: 4 at the" in conditions
    assert "- Tracks of the ground truth: derived from the" in conditions
    assert str(videos.parent) not in text
    rows = read_csv(tmp_path / "out" / "comparison.csv")
    assert {row["data_set"] for row in rows} == {"Avenue", "ped2"}
    assert {row["streaming_micro_auc"] for row in rows} == {"0.125"}
    parameters = {(r["model"], r["block"]): int(r["parameters"]) for r in rows}
    assert len(set(parameters.values())) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ensemble"], "Scores of videos are not averaged over seeds"),
        (["--models=mnad,draem"], "Received: mnad (video), draem (image)"),
        (["--set=data.patch_size=16"], "--set data.patch_size is for images"),
        (["--set=mnad:data.cache=memory"], "kept on disk, not in memory"),
        (["--set=data.layout=ucsd"], "2 of 2 data sets cannot be used"),
    ],
)
def test_errors_come_first(arguments, invoke, tmp_path, options, message):
    result = invoke(*arguments, *options, code=2)
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


# === A cell that is trained ===


def test_videos_are_trained_evaluated_and_compared(
    arguments, invoke, tmp_path, videos, monkeypatch
):
    monkeypatch.setattr(cells, "run_in_own_process", run_here)
    options = ["--models=mnad", "--seeds=1", "--sspcab=on"]
    invoke(*arguments, *options, f"--data={videos / 'Avenue'}")
    out = tmp_path / "out"
    (row,) = read_csv(out / "comparison.csv")
    folder = out / "runs" / "Avenue" / "mnad-on-seed0"
    assert RunFolder(str(folder)).is_finished
    metrics = json.loads((folder / "metrics.json").read_text())
    for key in ("micro_auc", "macro_auc", "num_scored_frames"):
        assert float(row[key]) == metrics[key]
    assert metrics["num_scored_frames"] == 6
    text = (out / "comparison.md").read_text()
    assert "- Frames without a score: 2 at the" in text
    assert "| mnad + SSPCAB | 84.8 | 88.6 |" in text
