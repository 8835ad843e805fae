"""Scores all shards with one of the engines, and checks the table."""

from collections.abc import Callable

from keras_sspcab.checks import standardize_choice
from keras_sspcab.scale.folder import ScoreCounts, import_pyarrow
from keras_sspcab.scale.plan import Scorer
from keras_sspcab.scale.ray_engine import RayOptions, import_ray, score_on_ray
from keras_sspcab.scale.shards import ScoringJob, ShardScorer

_ENGINES = ("local", "ray")


def check_engine(engine: str) -> None:
    """Raises an error unless there is such an engine and it is installed."""
    import_pyarrow()
    if standardize_choice(engine, _ENGINES, "engine") == "ray":
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

    Columns of the table:
        path: Absolute path or URL of the image.
        anomaly_score: In standard deviations of normal images.
        is_anomalous: Whether it reaches the threshold of the model.
        raw_score: Before normalization; null if the model gives none.
        error: Why there is no score, which is null then; null if there is one.
        height, width: Size of the image in its file, in pixels.
        model_checksum: SHA-256 of the model.
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
            score_on_ray(options or RayOptions(), job, pending, on_shard)
        elif pending:
            shards = ShardScorer(job, scorer)
            for shard in pending:
                shards.score(shard)
                on_shard(shard)
        return job.folder.finish()
