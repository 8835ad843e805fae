"""Scores all shards with one of the engines, and checks the table."""

import functools
from collections.abc import Callable, Sequence

from keras_sspcab.checks import standardize_choice
from keras_sspcab.scale.folder import ScoreCounts, ScoreFolder, import_pyarrow
from keras_sspcab.scale.ray_engine import RayOptions, import_ray, score_on_ray
from keras_sspcab.scale.shards import Scorer, ScoringJob, ShardScorer

#: Names of the engines.
ENGINES = ("local", "ray")


def check_engine(engine: str) -> None:
    """Raises an error unless all that an engine needs is installed.

    Args:
        engine: `"local"` or `"ray"`.

    Raises:
        ValueError: If there is no such engine.
        ImportError: If something is missing; the message says how to get it.

    Example:
    >>> check_engine("spark")
    Traceback (most recent call last):
    ...
    ValueError: The `engine` argument must be one of ['local', 'ray']. \
Received: engine='spark'
    """
    import_pyarrow()
    if standardize_choice(engine, ENGINES, "engine") == "ray":
        import_ray()


def score_shards(
    job: ScoringJob,
    engine: str = "local",
    scorer: Scorer | None = None,
    options: RayOptions | None = None,
    on_shard: Callable[[int], object] = lambda shard: None,
) -> ScoreCounts:
    """Scores all shards that are not done, and checks the whole table.

    It may be stopped at any time, in whatever way: the next call continues.

    Args:
        job: The job, from `ScoringJob.start`.
        engine: `"local"`, in this process, or `"ray"`.
        scorer: The model if it is loaded already, for `"local"`.
        options: Those of `"ray"`.
        on_shard: Called after each shard, in any order.

    Returns:
        Counts; also in `_SUCCESS.json`.

    Raises:
        ValueError: If a shard cannot be scored, or the table is not complete.
        ImportError: If the engine is not installed.

    Example:
    >>> counts = score_shards(job)  # doctest: +SKIP
    >>> counts.num_anomalous  # doctest: +SKIP
    12
    """
    engine = standardize_choice(engine, ENGINES, "engine")
    score = functools.partial(_score_here, scorer)
    if engine == "ray":
        score = functools.partial(score_on_ray, options or RayOptions())
    if pending := job.pending():
        score(job, pending, on_shard)
    return ScoreFolder(job.folder).finish(job.plan)


def _score_here(
    scorer: Scorer | None,
    job: ScoringJob,
    pending: Sequence[int],
    on_shard: Callable[[int], object],
) -> None:
    shards = ShardScorer(job, scorer)
    for shard in pending:
        shards.score(shard)
        on_shard(shard)
