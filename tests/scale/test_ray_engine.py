"""The engine `ray`, with workers that are killed."""

import functools
import os
import signal
import threading

import pytest

from keras_sspcab.scale import RayOptions, ScoreFolder, score_shards
from tests.scale.conftest import check_rows, save_gray
from tests.scale.scorers import (
    DEADLY,
    BuggyScorer,
    DeadlyScorer,
    MeanScorer,
    WaitingScorer,
)

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")

pytestmark = [
    pytest.mark.slow,
    # Ray Data warns of its own settings.
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\.data\..*"),
]
OPTIONS = RayOptions(num_workers=2)


@pytest.fixture(scope="module", autouse=True)
def _cluster():
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


def run(job, options=OPTIONS, **more):
    return score_shards(job, "ray", options=options, **more)


def test_one_row_for_each_image(make_job, images):
    (images / "11.png").write_bytes(b"")
    job = make_job()
    done = []
    counts = run(job, on_shard=done.append)
    assert sorted(done) == list(range(7))
    check_rows(job, images, broken=(11,))
    assert (counts.num_inputs, counts.num_errors) == (25, 1)
    # Ray is still there: it was before.
    assert ray.is_initialized()


def test_a_worker_that_is_killed_leaves_no_trace(make_job, images, tmp_path):
    pid_file = tmp_path / "pid"
    job = make_job(
        functools.partial(WaitingScorer, pid_file=str(pid_file)), shard_size=3
    )
    killed = []
    over = threading.Event()

    def kill():
        while not over.wait(0.02):
            if pid_file.exists():
                killed.append(int(pid_file.read_text()))
                os.kill(killed[0], signal.SIGKILL)
                return

    killer = threading.Thread(target=kill)
    killer.start()
    done = []
    try:
        counts = run(job, on_shard=done.append)
    finally:
        over.set()
        killer.join()
    assert killed
    assert killed[0] != os.getpid()
    assert counts.num_inputs == 25
    assert sorted(done) == list(range(9))
    check_rows(job, images)
    names = os.listdir(ScoreFolder(job.folder).file("scores"))
    assert sorted(names) == [f"part-{i:05d}.parquet" for i in range(9)]


def test_a_shard_that_kills_is_given_up(make_job, images):
    save_gray(images / "13.png", DEADLY)
    job = make_job(DeadlyScorer)
    with pytest.raises(ValueError) as caught:
        run(job, RayOptions(num_workers=1, max_attempts=2))
    assert "2 workers have died" in str(caught.value)
    assert "inputs 12 to 15" in str(caught.value)
    folder = ScoreFolder(job.folder)
    assert 3 in job.pending()
    assert not os.path.exists(folder.success)
    # Once the image is mended, the same job goes on.
    save_gray(images / "13.png", 130)
    job = make_job(MeanScorer)
    run(job)
    check_rows(job, images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
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
    with pytest.raises(ValueError) as caught:
        run(make_job(**options))
    assert "A worker could not score shard" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"num_workers": 0}, {"cpus_per_worker": 0}, {"gpus_per_worker": -1}],
)
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}`"):
        RayOptions(**options)
