import functools
import json
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from keras_sspcab.data import Preprocessing
from keras_sspcab.scale import ScoringJob, score_shards
from keras_sspcab.scale.engines import check_engine
from keras_sspcab.scoring import DriftReference
from tests.scale.conftest import check_rows, read_rows, save_gray
from tests.scale.scorers import BuggyScorer, KnowingScorer, MeanScorer


def part_files(job):
    folder = Path(job.folder.file("scores"))
    return {p.name: p.stat().st_mtime_ns for p in sorted(folder.iterdir())}


def test_one_row_for_each_image(make_job, images):
    job = make_job()
    done = []
    counts = score_shards(job, on_shard=done.append)
    assert done == list(range(7))
    check_rows(job, images)
    assert list(part_files(job)) == [f"part-{i:05d}.parquet" for i in range(7)]
    assert (counts.num_inputs, counts.num_scored) == (25, 25)
    assert (counts.num_errors, counts.num_anomalous) == (0, 12)
    with open(job.folder.success) as file:
        assert json.load(file)["num_inputs"] == 25
    schema = pq.read_schema(job.folder.part(0))
    types = {field.name: str(field.type) for field in schema}
    assert types == {
        "path": "string",
        "anomaly_score": "float",
        "is_anomalous": "bool",
        "raw_score": "float",
        "error": "string",
        "height": "int32",
        "width": "int32",
        "model_checksum": "string",
    }


def test_dark_files_of_16_bits_are_told(tmp_path):
    folder = tmp_path / "dark"
    folder.mkdir()
    dark = np.full((8, 8), 3000, "uint16")
    Image.fromarray(dark).save(folder / "a.png")
    with pytest.warns(UserWarning, match=r"a\.png .* none above 3000"):
        ScoringJob.start([folder], MeanScorer, MeanScorer(), tmp_path / "out")


def test_the_index_of_inputs_is_read_once(make_job, monkeypatch):
    """It grows with the shards, so that reading it for each is quadratic."""
    job, opened = make_job(), []
    read = pq.read_metadata

    def read_metadata(path):
        opened.append(os.path.basename(path))
        return read(path)

    monkeypatch.setattr(pq, "read_metadata", read_metadata)
    score_shards(job)
    assert opened.count("inputs.parquet") == 1


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"on_error": "skip"}, {"batch_size": 2.5}]
)
def test_arguments_are_checked(make_job, options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}`"):
        make_job(**options)


def test_a_table_that_is_done_stays(make_job):
    job = make_job()
    first = score_shards(job)
    before = part_files(job)
    # Nothing is scored, so the model is not even loaded.
    job = make_job(scorer=None)
    assert score_shards(job) == first
    assert part_files(job) == before


def test_changed_files_are_scored_again(make_job, images):
    job = make_job()
    score_shards(job)
    before = part_files(job)
    save_gray(images / "05.png", 200)
    os.unlink(images / "13.png")  # its score stays
    job = make_job()
    assert job.pending() == [1]
    score_shards(job)
    scores = [row["anomaly_score"] for row in read_rows(job)]
    expected = [10 * i / 255 for i in range(25)]
    expected[5] = 200 / 255
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    after = part_files(job)
    assert {name for name in after if after[name] != before[name]} == {
        "part-00001.parquet"
    }
    assert make_job().pending() == []


class _FailingScorer(MeanScorer):
    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def __call__(self, images):
        if self.calls == 0:
            raise KeyboardInterrupt
        self.calls -= 1
        return super().__call__(images)


@pytest.mark.parametrize("calls", [0, 3])
def test_what_was_stopped_goes_on(make_job, images, calls):
    job = make_job(functools.partial(_FailingScorer, calls))
    with pytest.raises(KeyboardInterrupt):
        score_shards(job)
    folder = job.folder
    # Two batches of 3 make a shard of 4.
    assert len(job.pending()) == 7 - calls // 2
    assert not os.path.exists(folder.success)
    before = part_files(job) if calls >= 2 else {}
    job = make_job()
    score_shards(job)
    check_rows(job, images)
    assert before.items() <= part_files(job).items()


@pytest.mark.parametrize(("darkest", "shards"), [(0.0, ()), (0.7, (0, 1))])
def test_drift_is_told_of_all_images_and_of_shards(
    images, tmp_path, darkest, shards
):
    brightness = np.linspace(darkest, 0.95, 50)
    reference = DriftReference.measure({"brightness": brightness})
    load = functools.partial(KnowingScorer, reference=reference)
    job = ScoringJob.start([images], load, load(), tmp_path / "out", 10)
    counts = score_shards(job)
    assert counts.num_compared == 25
    assert counts.drifting_shards == shards
    assert [d.statistic for d in counts.drifts] == ["brightness"] * bool(shards)
    # What was compared lies with the scores.
    assert score_shards(job) == counts
    record = json.loads(Path(job.folder.success).read_text())
    texts = [drift["text"] for drift in record["drifts"]]
    assert all("Images are darker than normal" in text for text in texts)


def break_images(images):
    (images / "03.png").write_bytes(b"")
    (images / "04.png").write_bytes((images / "04.png").read_bytes()[:40])
    (images / "20.png").write_text("no image")
    (images / "24.png").unlink()
    (images / "24.png").symlink_to(images / "nowhere.png")
    return (3, 4, 20, 24)


def test_broken_images_are_rows_with_an_error(make_job, images):
    broken = break_images(images)
    job = make_job(on_error="raise")
    with pytest.raises(ValueError) as caught:
        score_shards(job)
    assert "1 images among the 4 of shard 0" in str(caught.value)
    assert "03.png: the file is empty" in str(caught.value)
    job = make_job()
    assert job.pending() == list(range(7))
    counts = score_shards(job)
    check_rows(job, images, broken)
    rows = read_rows(job)
    assert rows[3]["error"] == "the file is empty"
    assert "broken or truncated PNG" in rows[4]["error"]
    assert "not an image" in rows[20]["error"]
    assert rows[24]["error"] == "the file does not exist"
    assert rows[3]["height"] is None
    assert (counts.num_scored, counts.num_errors) == (21, 4)


def test_scores_that_are_no_numbers_are_errors(make_job, images):
    class NaNScorer(MeanScorer):
        def __call__(self, images):
            outputs = super().__call__(images)
            # Not every model has raw scores.
            score = outputs.pop("raw_score") / 2
            outputs["anomaly_score"] = np.where(score > 0.9, np.nan, score)
            return outputs

    job = make_job(NaNScorer)
    score_shards(job)
    rows = read_rows(job)
    assert [i for i in range(25) if rows[i]["error"]] == [23, 24]
    assert rows[24]["error"] == "the model gives the score nan"
    assert rows[24]["anomaly_score"] is rows[24]["is_anomalous"] is None
    assert {row["raw_score"] for row in rows} == {None}


def test_images_are_resized_and_their_own_size_is_told(make_job, images):
    pixels = np.zeros((20, 10), "uint8")
    pixels[:10] = 100
    Image.fromarray(pixels).save(images / "05.png")
    job = make_job()
    score_shards(job)
    row = read_rows(job)[5]
    assert (row["height"], row["width"]) == (20, 10)
    assert row["anomaly_score"] == pytest.approx(50 / 255, abs=0.01)


def test_maps(make_job, images):
    (images / "06.png").write_bytes(b"")
    job = make_job(maps=True)
    score_shards(job)
    rows = read_rows(job)
    assert rows[6]["map_file"] is None
    assert rows[21]["map_file"] == "maps/00005/000000021.npy"
    names = {row["map_file"] for row in rows} - {None}
    assert len(names) == 24
    for i in (0, 7, 24):
        found = np.load(job.folder.file(rows[i]["map_file"]))
        np.testing.assert_allclose(
            found, np.full((8, 8), 10 * i / 255), atol=1e-3
        )


def test_maps_have_the_aspect_ratio_of_their_image(tmp_path):
    scorer = MeanScorer()
    scorer.preprocessing = Preprocessing(fit="pad")
    path = tmp_path / "wide.png"
    Image.fromarray(np.full((20, 40), 51, "uint8")).save(path)
    job = ScoringJob.start(
        [path], lambda: scorer, scorer, tmp_path / "out", maps=True
    )
    score_shards(job)
    [row] = read_rows(job)
    found = np.load(job.folder.file(row["map_file"]))
    np.testing.assert_allclose(found, np.full((4, 8), 0.2), atol=1e-3)
    # The model sees the gray beside it.
    assert row["anomaly_score"] == pytest.approx(0.35, abs=1e-3)


def test_damaged_files_are_written_again(make_job, images):
    job = make_job()
    score_shards(job)
    folder = job.folder
    with open(folder.part(2), "r+b") as file:
        file.truncate(100)
    os.unlink(folder.part(3))
    # What a killed worker leaves.
    leftovers = [
        Path(folder.file("scores", ".part-00001.99.tmp.parquet")),
        Path(folder.file("maps/00001/.000000004.1-0123abcd.tmp.npy")),
    ]
    for leftover in leftovers:
        leftover.parent.mkdir(parents=True, exist_ok=True)
        leftover.write_text("half")
    # A whole shard, but of another table.
    save_gray(images / "25.png", 250)
    other = make_job(out="other")
    score_shards(other)
    (images / "25.png").unlink()
    os.replace(other.folder.part(4), folder.part(4))
    assert job.pending() == [2, 3, 4]
    score_shards(job)
    check_rows(job, images)
    assert not any(leftover.exists() for leftover in leftovers)


def test_damage_within_a_file_is_named(make_job, images):
    job = make_job()
    score_shards(job)
    path = Path(job.folder.part(2))
    content, rng = path.read_bytes(), np.random.default_rng(0)
    num_found = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            job.folder.finish()
        except ValueError as error:
            num_found += 1
            message = str(error)
            assert str(path) in message
            assert "Remove what is wrong and start again" in message
        else:
            check_rows(job, images)
    assert num_found > 100
    path.unlink()
    score_shards(job)
    check_rows(job, images)
    # The list of inputs is known.
    Path(job.folder.file("inputs.parquet")).write_bytes(content[:50])
    path.unlink()
    score_shards(make_job())
    check_rows(job, images)


def test_one_process_at_a_time(make_job):
    job = make_job()
    with job.folder.locked():
        with pytest.raises(ValueError, match=f"by process {os.getpid()} on"):
            score_shards(job)
        with pytest.raises(ValueError, match="in use by"):
            make_job()


def test_inputs_that_have_vanished_are_rows(make_job, images):
    job = make_job(functools.partial(_FailingScorer, 3))
    with pytest.raises(KeyboardInterrupt):
        score_shards(job)
    (images / "03.png").unlink()  # is done
    (images / "20.png").unlink()
    job = make_job()
    counts = score_shards(job)
    check_rows(job, images, [20])
    assert read_rows(job)[20]["error"] == "the file does not exist"
    assert counts.num_errors == 1
    # What has come back has a score again.
    save_gray(images / "20.png", 20)
    score_shards(make_job())
    assert read_rows(job)[20]["error"] is None
    (images / "20.png").unlink()
    # Others instead are another table.
    save_gray(images / "26.png", 0)
    with pytest.raises(ValueError, match="other inputs"):
        make_job()


def test_what_does_not_belong_is_found(make_job):
    job = make_job()
    score_shards(job)
    folder = job.folder
    table = pq.read_table(folder.part(0))
    pq.write_table(table, folder.part(7))
    with pytest.raises(ValueError, match=r"00007\.parquet does not belong"):
        score_shards(job)
    os.unlink(folder.part(7))
    # As many rows, but not one for each input.
    metadata = table.schema.metadata
    del metadata[b"keras_sspcab.rows"]
    twice = table.take([0, 0, 1, 2]).replace_schema_metadata(metadata)
    pq.write_table(twice, folder.part(0))
    with pytest.raises(ValueError, match=r"00000\.parquet has other rows"):
        score_shards(job)


def test_bugs_are_not_hidden(make_job):
    with pytest.raises(RuntimeError, match="the model has a bug"):
        score_shards(make_job(BuggyScorer))
    with pytest.raises(ValueError, match="`engine`"):
        score_shards(make_job(), "spark")


def test_missing_packages_name_the_extra(make_job, monkeypatch):
    for name in ("pyarrow.parquet", "ray"):
        monkeypatch.setitem(sys.modules, name, None)
    for engine in ("local", "ray"):
        with pytest.raises(ImportError, match=r"keras-sspcab\[scale\]"):
            check_engine(engine)
