"""Scores all shards in this process or on Ray, and checks the table."""

import contextlib
import dataclasses
import logging
import math
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from keras_sspcab.checks import (
    standardize_choice,
    standardize_int,
    standardize_number,
)
from keras_sspcab.imports import import_optional
from keras_sspcab.scale.folder import ScoreCounts, import_pyarrow
from keras_sspcab.scale.plan import Scorer
from keras_sspcab.scale.shards import ScoringJob, ShardScorer

_ENGINES = ("local", "ray")
# Only numbers of shards pass through it.
_OBJECT_STORE_BYTES = 100 * 2**20
# Times that a shard is begun before it is given up.
_MAX_ATTEMPTS = 4


@dataclasses.dataclass(frozen=True)
class RayOptions:
    """How Ray is used.

    Attributes:
        address: That of a cluster, as in `ray.init`; None takes the one in
            `RAY_ADDRESS`, or starts Ray on this machine until the job is done.
        num_workers: Processes that score; None takes as many as there is room
            for.
        cpus_per_worker: Cores that each of them takes.
        gpus_per_worker: GPUs that each of them takes; may be a fraction.

    Example:
    >>> RayOptions(num_workers=2).cpus_per_worker
    1
    """

    address: str | None = None
    num_workers: int | None = None
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0.0

    def __post_init__(self) -> None:
        if self.num_workers is not None:
            standardize_int(self.num_workers, "num_workers", 1)
        standardize_int(self.cpus_per_worker, "cpus_per_worker", 1)
        standardize_number(self.gpus_per_worker, "gpus_per_worker", 0, math.inf)


def check_engine(engine: str) -> None:
    """Raises an error unless there is such an engine and it is installed."""
    import_pyarrow()
    if standardize_choice(engine, _ENGINES, "engine") == "ray":
        _import_ray()


def score_shards(
    job: ScoringJob,
    engine: str = "local",
    scorer: Scorer | None = None,
    options: RayOptions | None = None,
    on_shard: Callable[[int], object] = lambda shard: None,
) -> ScoreCounts:
    """Scores all shards that are not done, and checks the whole table.

    It may be stopped at any time, in whatever way: the next call continues. It
    scores shards again whose files have changed in size or time.

    Columns of the table:
        path: Absolute path or URL of the image.
        anomaly_score: In standard deviations of normal images.
        is_anomalous: Whether it reaches the threshold of the model.
        raw_score: Before normalization; null if the model gives none.
        error: Why there is no score, which is null then; null if there is one.
        height, width: Size of the image in its file, in pixels.
        model_checksum: SHA-256 of the model.
        region_score_NAME, region_is_anomalous_NAME: Of each region with a
            threshold of its own.
        product: Of a model of several: the name of the one that it was taken
            for.
        map_file: With `maps`: the map, relative to the folder.

    Args:
        job: The job, from `ScoringJob.start`.
        engine: `"local"`, in this process, or `"ray"`.
        scorer: The model if it is loaded already, for `"local"`.
        options: Those of `"ray"`.
        on_shard: Called after each shard, in any order.

    Returns:
        Counts; also in `_SUCCESS.json`.

    Raises:
        ValueError: If a shard cannot be scored, the table is not complete, or
            another process is scoring into the folder.
        ImportError: If the engine is not installed.

    Example:
    >>> counts = score_shards(job)  # doctest: +SKIP
    >>> counts.num_anomalous  # doctest: +SKIP
    12
    """
    check_engine(engine)
    with job.folder.locked():
        pending = job.pending()
        if pending and engine.lower() == "ray":
            _score_on_ray(options or RayOptions(), job, pending, on_shard)
        elif pending:
            shards = ShardScorer(job, scorer)
            for shard in pending:
                shards.score(shard)
                on_shard(shard)
        return job.folder.finish(job.reference)


# === Ray ===


def _import_ray() -> Any:
    purpose = "The engine 'ray' needs Ray; 'local' does without"
    return import_optional("ray", purpose, "scale")


def _score_on_ray(
    options: RayOptions,
    job: ScoringJob,
    pending: Sequence[int],
    on_shard: Callable[[int], object],
) -> None:
    """Hands shards to workers; if one cannot be scored, others may be done.

    The folder, the inputs and the model must have the same paths on all
    machines, and this package must be installed there. Ray starts a worker
    again that has died, and repeats what it was doing.
    """
    ray = _import_ray()
    with _cluster(ray, options):
        worker = ray.remote(ShardWorker).options(
            num_cpus=options.cpus_per_worker,
            num_gpus=options.gpus_per_worker or None,
            max_restarts=-1,
            max_task_retries=_MAX_ATTEMPTS - 1,
        )
        count = min(_num_workers(ray, options), len(pending))
        workers = [worker.remote(job, options) for _ in range(count)]
        # By what is awaited, a worker and its shard; none while it starts.
        running: dict[Any, tuple[Any, int | None]] = {
            each.__ray_ready__.remote(): (each, None) for each in workers
        }
        waiting = list(reversed(pending))
        while waiting or any(
            shard is not None for _, shard in running.values()
        ):
            (done,), _ = ray.wait(list(running))
            each, shard = running.pop(done)
            error = _result(ray, done, job, shard)
            if error:
                raise ValueError(
                    f"A worker could not score shard {shard}: {error}"
                )
            if shard is not None:
                on_shard(shard)
            if waiting:
                following = waiting.pop()
                running[each.score.remote(following)] = each, following


def _result(ray: Any, done: Any, job: ScoringJob, shard: int | None) -> str:
    """Returns the error of a worker; empty if there is none."""
    try:
        error = ray.get(done)
        return error if shard is not None else ""
    except ray.exceptions.RayActorError as error:
        if shard is None:
            return str(error)
        first, after = job.plan.bounds(shard)
        return (
            f"{_MAX_ATTEMPTS} workers have died at the inputs {first} to "
            f"{after - 1}. They may need more memory than there is: take a "
            "smaller batch or fewer workers, or look for huge images"
        )


class ShardWorker:
    """A process of Ray's; errors are returned, for Ray wraps them."""

    def __init__(self, job: ScoringJob, options: RayOptions) -> None:
        self._job = job
        self._options = options
        self._scorer: ShardScorer | None = None

    def score(self, shard: int) -> str:
        """Scores a shard; returns the error, empty if there is none."""
        try:
            # What was done before a worker died is not repeated.
            if not self._job.folder.is_current(shard):
                self._score(shard)
        except (ValueError, OSError, ImportError) as problem:
            return str(problem) or type(problem).__name__
        except Exception:
            return traceback.format_exc()
        return ""

    def _score(self, shard: int) -> None:
        if self._scorer is None:
            import tensorflow as tf

            # No more cores than the worker has, and no more memory of a GPU,
            # which others may share, than it needs.
            count = self._options.cpus_per_worker
            with contextlib.suppress(RuntimeError):  # it is running already
                tf.config.threading.set_intra_op_parallelism_threads(count)
                tf.config.threading.set_inter_op_parallelism_threads(count)
                for gpu in tf.config.list_physical_devices("GPU"):
                    tf.config.experimental.set_memory_growth(gpu, True)
            self._scorer = ShardScorer(self._job)
        self._scorer.score(shard)


def _num_workers(ray: Any, options: RayOptions) -> int:
    if options.num_workers is not None:
        return options.num_workers
    room = ray.cluster_resources()
    needed = {"CPU": options.cpus_per_worker, "GPU": options.gpus_per_worker}
    # Of shares such as 0.2 of a GPU, five fit, whatever floats make of it.
    count = min(
        math.floor(room.get(k, 0) / number + 1e-6)
        for k, number in needed.items()
        if number
    )
    if count < 1:
        raise ValueError(
            "There is no room in the Ray cluster for one worker. It has "
            f"{room.get('CPU', 0):g} cores and {room.get('GPU', 0):g} GPUs. "
            f"Received: cpus_per_worker={options.cpus_per_worker}, "
            f"gpus_per_worker={options.gpus_per_worker:g}. Where machines are "
            "yet to come, say how many workers"
        )
    return count


@contextlib.contextmanager
def _cluster(ray: Any, options: RayOptions) -> Iterator[None]:
    """Connects to Ray, or starts it; what was there before stays."""
    if ray.is_initialized():
        yield
        return
    arguments: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    if options.address or os.environ.get("RAY_ADDRESS"):
        arguments["address"] = options.address
    else:
        # None would join a cluster that runs on this machine.
        arguments["address"] = "local"
        if options.num_workers is not None:
            # Also more than Ray finds, which heeds the limits of containers.
            needed = options.num_workers * options.cpus_per_worker
            arguments["num_cpus"] = max(needed, os.cpu_count() or 1)
        arguments["include_dashboard"] = False
        arguments["object_store_memory"] = _OBJECT_STORE_BYTES
    try:
        ray.init(**arguments)
    except ConnectionError as error:
        raise ValueError(
            f"There is no Ray cluster at {options.address!r}: {error}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
