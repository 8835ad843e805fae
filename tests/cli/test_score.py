import json
import math
import os
import signal
import subprocess
import time

import numpy as np
import pytest

from keras_sspcab.runs import load_detector
from tests.cli.cells import read_csv
from tests.cli.program import command, start

pq = pytest.importorskip("pyarrow.parquet")


def read_rows(out):
    return pq.read_table(out / "scores").to_pylist()


@pytest.fixture(scope="module")
def predicted(invoke, trained, images, tmp_path_factory):
    """What `predict` says about all images, by path."""
    out = tmp_path_factory.mktemp("predicted") / "scores.csv"
    pattern = images / "**" / "*.png"
    invoke("predict", trained, pattern, f"--out={out}")
    return {row["path"]: row for row in read_csv(out)}


def check_rows(rows, predicted):
    assert [row["path"] for row in rows] == sorted(predicted)
    for row in rows:
        expected = predicted[row["path"]]
        assert row["error"] is None
        for name in ("anomaly_score", "raw_score"):
            if row[name] is not None:
                assert row[name] == pytest.approx(
                    float(expected[name]), rel=1e-4, abs=1e-3
                )
        assert str(row["is_anomalous"]) == expected["is_anomalous"]
        assert (row["height"], row["width"]) == (48, 48)


def test_scores_equal_those_of_predict(
    invoke, trained, images, predicted, tmp_path
):
    out = tmp_path / "scores"
    arguments = ["score", images / "**" / "*.png", f"--model={trained}"]
    result = invoke(*arguments, f"--out={out}", "--shard-size=7")
    check_rows(read_rows(out), predicted)
    digest = subprocess.run(
        ["sha256sum", trained / "model.keras"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()[0]
    assert {row["model_checksum"] for row in read_rows(out)} == {digest}
    count = sum(row["is_anomalous"] for row in read_rows(out))
    assert f"{count} of {len(predicted)} anomalous" in result.stdout
    assert f"Wrote {len(predicted)} rows in 4 files" in result.stdout
    again = invoke(*arguments, f"--out={out}", "--shard-size=7")
    assert "Continuing: 4 of 4 shards are done." in again.stdout
    result = invoke(*arguments, f"--out={out}", "--shard-size=8", code=2)
    assert "another shard_size (7 then, 8 now)" in result.stderr


def test_exported_models_and_maps(invoke, trained, images, predicted, tmp_path):
    from keras_sspcab.export import export_saved_model

    detector = load_detector(str(trained))
    noise = np.random.default_rng(0).random((2, 48, 48, 1), "float32")
    export_saved_model(detector, tmp_path / "model", images=noise)
    for version in ("9", "10"):
        (tmp_path / "model" / version).mkdir()
        (tmp_path / "model" / version / "saved_model.pb").touch()
    out = tmp_path / "scores"
    arguments = ["score", *sorted(predicted), "--maps"]
    result = invoke(
        *arguments, f"--model={tmp_path / 'model'}", f"--out={out}", code=2
    )
    assert f"Give one of them, such as {tmp_path / 'model' / '10'}" in (
        result.stderr
    )
    invoke(*arguments, f"--model={tmp_path / 'model' / '1'}", f"--out={out}")
    rows = read_rows(out)
    check_rows(rows, predicted)
    assert {row["raw_score"] for row in rows} == {None}
    for row in rows:
        found = np.load(out / row["map_file"])
        assert found.dtype == np.float16
        assert found.shape == (48, 48)


def test_other_thresholds(invoke, trained, images, tmp_path):
    """Of runs and of exports."""
    from keras_sspcab.export import export_saved_model

    model = load_detector(str(trained))
    version = export_saved_model(model, tmp_path / "model", check=False).path
    for name, path in (("run", trained), ("export", version)):
        out = tmp_path / name
        arguments = ["score", images, f"--model={path}", f"--out={out}"]
        invoke(*arguments, "--sensitivity=1")
        rows = read_rows(out)
        scores = np.array([row["anomaly_score"] for row in rows])
        assert 0 < (scores >= 0).sum() < len(rows)
        flags = [row["is_anomalous"] for row in rows]
        assert flags == (scores >= 0).tolist()
        result = invoke(*arguments, "--threshold=2", code=2)
        text = " ".join(result.stderr.split())
        assert "another decision (sensitivity=1 then, threshold=2 now)" in text


def test_broken_images_and_uncalibrated_models(invoke, images, tmp_path):
    from keras_sspcab.applications import AutoEncoder

    model = tmp_path / "m.keras"
    AutoEncoder((48, 48, 1), filters=(4, 4, 2)).save(model)
    good = images / "test" / "good" / "000.png"
    broken = tmp_path / "broken.png"
    broken.write_bytes(good.read_bytes()[:-30])
    out = tmp_path / "scores"
    arguments = ["score", good, broken, f"--model={model}", f"--out={out}"]
    result = invoke(*arguments, "--on-error=raise", code=2)
    assert "broken.png: broken or truncated PNG" in result.stderr
    assert not (out / "_SUCCESS.json").exists()
    result = invoke(*arguments)
    assert "not calibrated: nothing is flagged" in result.stdout
    assert "1 images could not be scored" in result.stdout
    by_path = {row["path"]: row for row in read_rows(out)}
    assert "broken or truncated PNG" in by_path[str(broken)]["error"]
    assert math.isfinite(by_path[str(good)]["anomaly_score"])
    record = json.loads((out / "_SUCCESS.json").read_text())
    assert (record["num_inputs"], record["num_errors"]) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine=spark"], "--engine must be local or ray"),
        (["--workers=2"], "are for --engine ray"),
        (["--gpus-per-worker=1"], "are for --engine ray"),
        (["--on-error=skip"], "--on-error must be one of"),
        (["--batch-size=0"], "--batch-size must be"),
        (["--shard-size=0"], "--shard-size must be"),
        (["--model=nothing"], "no run folder"),
        (["--out=file"], "file is a file"),
        (["missing/*.png"], "no file that matches"),
    ],
)
def test_errors_say_what_to_do(
    invoke, trained, images, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    defaults = [f"--model={trained}", "--out=scores"]
    result = invoke("score", images, *defaults, *arguments, code=2)
    assert message in result.stderr
    assert not (tmp_path / "scores").exists()


def test_models_that_do_not_take_such_images(invoke, images, tmp_path):
    from keras_sspcab.applications import AutoEncoder, FutureFrame

    model, out = tmp_path / "m.keras", tmp_path / "scores"
    for host, message in (
        (AutoEncoder((None, None, 1), filters=(4, 4, 2)), "Images of one size"),
        (FutureFrame((3, 16, 16, 1), base_width=2), "predict RUN --video VID"),
    ):
        host.save(model)
        result = invoke(
            "score", images, f"--model={model}", f"--out={out}", code=2
        )
        assert message in result.stderr
        assert not out.exists()


@pytest.mark.slow
def test_a_process_that_is_killed_goes_on(trained, predicted, tmp_path):
    out = tmp_path / "scores"
    folder = tmp_path / "many"
    folder.mkdir()
    sources = sorted(predicted)
    expected = {}
    for i in range(80):
        path = folder / f"{i:03d}.png"
        os.link(sources[i % len(sources)], path)
        expected[str(path)] = predicted[sources[i % len(sources)]]
    arguments = [
        "score",
        folder,
        f"--model={trained}",
        f"--out={out}",
        "--shard-size=2",
    ]
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE)
    parts = out / "scores"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        done = list(parts.glob("part-*")) if parts.is_dir() else []
        if len(done) >= 3:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    before = {p: p.stat().st_mtime_ns for p in parts.glob("part-*")}
    assert 3 <= len(before) < 40
    assert not (out / "_SUCCESS.json").exists()
    result = start(*arguments)
    assert result.returncode == 0, result.stderr
    assert f"Continuing: {len(before)} of 40 shards are done." in result.stdout
    check_rows(read_rows(out), expected)
    assert len(os.listdir(parts)) == 40
    for path, time_written in before.items():
        assert path.stat().st_mtime_ns == time_written


@pytest.mark.slow
def test_ray_on_this_machine(trained, predicted, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    # With no cluster but its own.
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    out = tmp_path / "scores"
    result = start(
        "score",
        *sorted(predicted),
        f"--model={trained}",
        f"--out={out}",
        "--engine=ray",
        "--workers=2",
        "--shard-size=3",
    )
    assert result.returncode == 0, result.stderr
    check_rows(read_rows(out), predicted)
    assert f"Wrote {len(predicted)} rows" in result.stdout
