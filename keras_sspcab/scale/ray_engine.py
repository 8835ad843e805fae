"""The engine `ray`: Ray Data hands shards to a pool of workers.

Ray Data replaces workers that have died and repeats what they were doing,
without end. Each attempt at a shard therefore leaves a mark in the folder, so
that a shard that kills whoever works at it is given up.
"""

import contextlib
import dataclasses
import logging
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from keras_sspcab.checks import standardize_int, standardize_number
from keras_sspcab.imports import import_optional
from keras_sspcab.scale.folder import ScoreFolder
from keras_sspcab.scale.shards import ScoringJob, ShardScorer

# More blocks would cost more to keep than to repeat.
_MAX_BLOCKS = 2000
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


def import_ray() -> Any:
    """Returns the module `ray`, with `ray.data` in it."""
    # Its native code writes warnings about Ray Data's own actors.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    purpose = "The engine 'ray' needs Ray Data; 'local' does without"
    import_optional("ray.data", purpose, "scale")
    return sys.modules["ray"]


def score_on_ray(
    options: RayOptions,
    job: ScoringJob,
    pending: Sequence[int],
    on_shard: Callable[[int], object],
) -> None:
    """Scores shards on Ray; if one cannot be scored, others may be done.

    The folder, the inputs and the model must have the same paths on all
    machines, and this package must be installed there.
    """
    ray = import_ray()
    for shard in pending:
        _forget_attempts(job.folder, shard)
    with _cluster(ray, options), _quiet(ray):
        pool = ray.data.ActorPoolStrategy(
            size=min(_num_workers(ray, options), len(pending)),
            # A waiting shard is not repeated when the worker dies.
            max_tasks_in_flight_per_actor=1,
        )
        results = ray.data.from_items(
            [{"shard": shard} for shard in pending],
            override_num_blocks=min(len(pending), _MAX_BLOCKS),
        ).map_batches(
            ShardWorker,
            fn_constructor_args=(job, options),
            batch_size=1,
            compute=pool,
            num_cpus=options.cpus_per_worker,
            num_gpus=options.gpus_per_worker or None,
        )
        for result in results.iter_rows():
            if result["error"]:
                raise ValueError(
                    f"A worker could not score shard {result['shard']}: "
                    f"{result['error']}"
                )
            on_shard(result["shard"])


class ShardWorker:
    """One process of the pool; errors are returned, for Ray wraps them."""

    def __init__(self, job: ScoringJob, options: RayOptions) -> None:
        self._job = job
        self._options = options
        self._scorer: ShardScorer | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        shard, error = int(batch["shard"][0]), ""
        try:
            self._score(shard)
        except (ValueError, OSError, ImportError) as problem:
            error = str(problem) or type(problem).__name__
        except Exception:
            error = traceback.format_exc()
        return {"shard": [shard], "error": [error]}

    def _score(self, shard: int) -> None:
        folder = self._job.folder
        # What was done before a worker died is not repeated.
        if folder.is_done(shard):
            return
        if _count_attempt(folder, shard) > _MAX_ATTEMPTS:
            first, after = self._job.plan.bounds(shard)
            raise ValueError(
                f"{_MAX_ATTEMPTS} workers have died at the inputs {first} to "
                f"{after - 1}. They may need more memory than there is: take a "
                "smaller batch or fewer workers, or look for huge images"
            )
        if self._scorer is None:
            _limit_threads(self._options.cpus_per_worker)
            self._scorer = ShardScorer(self._job)
        self._scorer.score(shard)
        _forget_attempts(folder, shard)


def _count_attempt(folder: ScoreFolder, shard: int) -> int:
    with open(_attempts(folder, shard), "ab") as file:
        file.write(b".")
        return file.tell()


def _forget_attempts(folder: ScoreFolder, shard: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_attempts(folder, shard))


def _attempts(folder: ScoreFolder, shard: int) -> str:
    return folder.file("scores", f".part-{shard:05d}.attempts")


def _limit_threads(count: int) -> None:
    """Keeps TensorFlow to the cores that the worker has."""
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # it is running already
        tf.config.threading.set_intra_op_parallelism_threads(count)
        tf.config.threading.set_inter_op_parallelism_threads(count)


def _num_workers(ray: Any, options: RayOptions) -> int:
    if options.num_workers is not None:
        return options.num_workers
    room = ray.cluster_resources()
    count = room.get("CPU", 0) // options.cpus_per_worker
    if options.gpus_per_worker:
        count = min(count, room.get("GPU", 0) // options.gpus_per_worker)
    return max(1, int(count))


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
        workers = options.num_workers or 1
        needed = workers * options.cpus_per_worker
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


@contextlib.contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Hides Ray Data's own bars and log while the job runs."""
    context = ray.data.DataContext.get_current()
    log = logging.getLogger("ray.data")
    bars, level = context.enable_progress_bars, log.level
    context.enable_progress_bars = False
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        log.setLevel(level)
