"""The whole road over a folder that fsspec reads."""

import json

import pytest

from tests.cli.cells import read_csv
from tests.cli.conftest import TRAINING


def test_a_remote_folder_is_as_good_as_a_local_one(images, tmp_path, invoke):
    fsspec = pytest.importorskip("fsspec")
    pyarrow = pytest.importorskip("pyarrow.parquet")
    system = fsspec.filesystem("memory")
    system.put(str(images), "/remote/brick", recursive=True)
    root, run, out = "memory://remote/brick", tmp_path / "run", tmp_path / "out"
    invoke("train", "--data", root, "--run", run, *TRAINING)
    assert f'path = "{root}"' in (run / "config.toml").read_text()
    metrics = []
    for data in ([], ["--data", images]):
        invoke("evaluate", run, *data)
        metrics.append(json.loads((run / "metrics.json").read_text()))
        invoke("report", run)
        page = (run / "report.html").read_text()
        assert page.count("data:image/jpeg") == 8
    assert metrics[0] == metrics[1]
    assert metrics[0]["pixel_auroc"] > 0

    # More normal images, at a URL as well; of which none was trained on.
    system.put(str(images / "test/good"), "/remote/more", recursive=True)
    invoke("calibrate", run, "--data", "memory://remote/more")
    assert "more@" in (run / "calibrations.json").read_text()

    hole = f"{root}/test/hole"
    for inputs, count in ([hole], 2), ([f"{hole}/000.png"], 1):
        invoke("predict", run, *inputs, "--out", tmp_path / "rows.csv")
        paths = [row["path"] for row in read_csv(tmp_path / "rows.csv")]
        assert paths == [f"{hole}/00{i}.png" for i in range(count)]
    invoke("score", f"{root}/test/**/*.png", "--model", run, "--out", out)
    table = pyarrow.read_table(out / "scores")
    assert table.num_rows == 8
    assert not any(table["error"].to_pylist())
    system.rm("/remote", recursive=True)
