"""The engine `ray`, with workers that die and fail."""

import functools
import os
from types import SimpleNamespace

import pytest

from keras_sspcab.scale import RayOptions, score_shards
from keras_sspcab.scale.engines import ShardWorker, _cluster, _num_workers
from tests.scale.conftest import check_rows
from tests.scale.scorers import BuggyScorer, DyingScorer, MeanScorer


@pytest.mark.slow
def test_workers_that_die(make_job, images, tmp_path):
    ray = pytest.importorskip("ray")
    (images / "11.png").write_bytes(b"")
    ray.init(
        "local",  # not one that runs already
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        marker = str(tmp_path / "{}")
        job = make_job(functools.partial(DyingScorer, marker=marker, times=9))
        with pytest.raises(ValueError, match="4 workers have died at the inp"):
            score_shards(job, "ray", options=RayOptions(num_workers=1))
        assert len(job.pending()) == 7
        # Once leaves no trace.
        job = make_job(functools.partial(DyingScorer, marker=marker, times=5))
        done = []
        counts = score_shards(job, "ray", on_shard=done.append)
        # It was there before.
        assert ray.is_initialized()
    finally:
        ray.shutdown()
    assert (tmp_path / "4").exists()
    assert sorted(done) == list(range(7))
    assert (counts.num_inputs, counts.num_errors) == (25, 1)
    check_rows(job, images, broken=(11,))
    names = os.listdir(job.folder.file("scores"))
    assert sorted(names) == [f"part-{i:05d}.parquet" for i in range(7)]


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
        error = worker.score(0)
    assert message in error
    assert job.folder.is_done(0) is (error == "")


@pytest.mark.parametrize(
    ("room", "options", "count"),
    [
        ({"CPU": 16.0, "GPU": 1.0}, {"gpus_per_worker": 0.2}, 5),
        ({"CPU": 16.0, "GPU": 1.0}, {"gpus_per_worker": 0.1}, 10),
        ({"CPU": 16.0, "GPU": 1.0}, {"gpus_per_worker": 0.3}, 3),
        ({"CPU": 5.0}, {"cpus_per_worker": 2}, 2),
        ({"CPU": 5.0}, {"num_workers": 7}, 7),
    ],
)
def test_as_many_workers_as_fit(room, options, count):
    ray = SimpleNamespace(cluster_resources=lambda: room)
    assert _num_workers(ray, RayOptions(**options)) == count


def test_ray_finds_the_cores_unless_workers_are_counted():
    """Ray respects the CPU limit of a container; `os.cpu_count` does not."""
    begun = []
    ray = SimpleNamespace(
        is_initialized=lambda: False,
        init=lambda **arguments: begun.append(arguments.get("num_cpus")),
        shutdown=lambda: None,
    )
    for options in (RayOptions(), RayOptions(num_workers=500)):
        with _cluster(ray, options):
            pass
    assert begun == [None, 500]


@pytest.mark.parametrize(
    "options",
    [{"num_workers": 0}, {"cpus_per_worker": 0}, {"gpus_per_worker": -1}],
)
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}`"):
        RayOptions(**options)
