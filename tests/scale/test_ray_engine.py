"""The engine `ray`, with workers that die and fail."""

import functools
import os

import pytest

from keras_sspcab.scale import RayOptions, score_shards
from keras_sspcab.scale.ray_engine import ShardWorker
from tests.scale.conftest import check_rows
from tests.scale.scorers import BuggyScorer, DyingScorer, MeanScorer


@pytest.mark.slow
# Ray Data warns of its own settings.
@pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\.data\..*")
def test_a_worker_that_dies_leaves_no_trace(make_job, images, tmp_path):
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    (images / "11.png").write_bytes(b"")
    scorer = functools.partial(DyingScorer, marker=str(tmp_path / "dead"))
    job = make_job(scorer)
    done = []
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        counts = score_shards(job, "ray", on_shard=done.append)
        # It was there before.
        assert ray.is_initialized()
    finally:
        ray.shutdown()
    assert (tmp_path / "dead").exists()
    assert sorted(done) == list(range(7))
    assert (counts.num_inputs, counts.num_errors) == (25, 1)
    check_rows(job, images, broken=(11,))
    names = os.listdir(job.folder.file("scores"))
    assert sorted(names) == [f"part-{i:05d}.parquet" for i in range(7)]


def test_a_shard_that_kills_is_given_up(make_job):
    job = make_job()
    # Four workers have left their marks, and no scores.
    with open(job.folder.file("scores", ".part-00003.attempts"), "w") as file:
        file.write("....")
    (error,) = ShardWorker(job, RayOptions())({"shard": [3]})["error"]
    assert "4 workers have died" in error
    assert "inputs 12 to 15" in error
    assert 3 in job.pending()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, ""),
        ({"scorer": BuggyScorer}, "RuntimeError: the model has a bug"),
        (
            {"scorer": functools.partial(MeanScorer, checksum="d" * 64)},
            "The model has changed since the start",
        ),
        ({"on_error": "raise"}, "00.png: the file is empty"),
    ],
)
def test_errors_of_workers_are_told(make_job, images, options, message):
    (images / "00.png").write_bytes(b"")
    job = make_job(**options)
    worker = ShardWorker(job, RayOptions())
    for _ in range(2):  # what is done is not repeated
        result = worker({"shard": [0]})
    assert result["shard"] == [0]
    assert message in result["error"][0]
    assert job.folder.is_done(0) is (result["error"] == [""])


@pytest.mark.parametrize(
    "options",
    [{"num_workers": 0}, {"cpus_per_worker": 0}, {"gpus_per_worker": -1}],
)
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}`"):
        RayOptions(**options)
