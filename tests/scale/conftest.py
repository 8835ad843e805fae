"""Images of a known mean, and tables of scores."""

import numpy as np
import pytest
from PIL import Image

from tests.scale.scorers import CHECKSUM, SIZE, MeanScorer

pq = pytest.importorskip("pyarrow.parquet")

from keras_sspcab.scale import ScoringJob  # noqa: E402


def save_gray(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(SIZE, value, "uint8")).save(path)


@pytest.fixture
def images(tmp_path):
    """25 images; that of number i is of the gray value 10 i."""
    for i in range(25):
        save_gray(tmp_path / "images" / f"{i:02d}.png", 10 * i)
    return tmp_path / "images"


@pytest.fixture
def make_job(images, tmp_path):
    """Begins with a table of 4 images a shard, in batches of 3."""

    def make_job(scorer=MeanScorer, out="out", **options):
        options = {"shard_size": 4, "batch_size": 3, **options}
        return ScoringJob.start(
            [images], scorer, MeanScorer(), tmp_path / out, **options
        )

    return make_job


def read_rows(job):
    """Rows of the table, as a stranger reads them."""
    return pq.read_table(job.folder.file("scores")).to_pylist()


def check_rows(job, images, broken=()):
    """Every image has exactly one row, with what it must score."""
    rows = read_rows(job)
    assert [row["path"] for row in rows] == [
        str(images / f"{i:02d}.png") for i in range(25)
    ]
    for i, row in enumerate(rows):
        assert row["model_checksum"] == CHECKSUM
        if i in broken:
            assert row["error"]
            assert row["anomaly_score"] is row["is_anomalous"] is None
            assert row["raw_score"] is None
            continue
        assert row["error"] is None
        assert row["anomaly_score"] == pytest.approx(10 * i / 255, abs=1e-6)
        assert row["raw_score"] == pytest.approx(20 * i / 255, abs=1e-6)
        assert row["is_anomalous"] is (10 * i >= 127.5)
        assert (row["height"], row["width"]) == SIZE
