"""Works a job off with one of the engines, and checks what came out."""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

from keras_sspcab.checks import standardize_choice
from keras_sspcab.runs import files
from keras_sspcab.runs.folder import now
from keras_sspcab.scale._optional import pyarrow
from keras_sspcab.scale.folder import ScoreFolder
from keras_sspcab.scale.plan import Plan
from keras_sspcab.scale.ray_engine import RayOptions, run_on_ray
from keras_sspcab.scale.shards import Job, Scorer, ShardScorer

#: Names of the engines.
ENGINES = ("local", "ray")


@dataclasses.dataclass(frozen=True)
class Summary:
    """What is in a finished table.

    Attributes:
        num_inputs: Number of inputs, and of rows.
        num_scored: Rows with a score.
        num_errors: Rows with an error.
        num_anomalous: Rows with `is_anomalous`.
        num_shards: Number of files.
        model_checksum: SHA-256 of the model.
    """

    num_inputs: int
    num_scored: int
    num_errors: int
    num_anomalous: int
    num_shards: int
    model_checksum: str


def run_job(
    job: Job,
    engine: str = "local",
    scorer: Scorer | None = None,
    options: RayOptions | None = None,
    pending: Sequence[int] | None = None,
    on_shard: Callable[[int], None] = lambda shard: None,
) -> Summary:
    """Scores all shards that are not done, and checks the whole table.

    It may be stopped at any time, in whatever way: the next call goes on.

    Args:
        job: The job; `ScoreFolder.start` has been called for it.
        engine: `"local"`, in this process, or `"ray"`.
        scorer: The model if it is loaded already, for `"local"`.
        options: Those of `"ray"`.
        pending: The shards to do, if they are known.
        on_shard: Called after each shard, in any order.

    Returns:
        Counts; also in `_SUCCESS.json`.

    Raises:
        ValueError: If a shard cannot be scored, or the table is not complete.
        ImportError: If the engine is not installed.
    """
    engine = standardize_choice(engine, ENGINES, "engine")
    folder = ScoreFolder(job.folder)
    if pending is None:
        pending = folder.pending(job.plan)
    if pending:
        run = functools.partial(_run_here, scorer)
        if engine == "ray":
            run = functools.partial(run_on_ray, options or RayOptions())
        run(job, pending, on_shard)
    summary = check_table(folder, job.plan)
    folder.remove_leftovers()
    files.write_json(
        folder.success, {**dataclasses.asdict(summary), "finished": now()}
    )
    return summary


def _run_here(
    scorer: Scorer | None,
    job: Job,
    pending: Sequence[int],
    on_shard: Callable[[int], None],
) -> None:
    shards = ShardScorer(job, scorer)
    for shard in pending:
        shards.score(shard)
        on_shard(shard)


def check_table(folder: ScoreFolder, plan: Plan) -> Summary:
    """Reads the whole table: every input must have exactly one row.

    Returns:
        What is in it.

    Raises:
        ValueError: If a file is missing, foreign or holds other rows.
    """
    problems = [
        f"{folder.file('scores', name)} does not belong here"
        for name in folder.foreign_parts(plan)
    ]
    errors = anomalous = 0
    for shard in range(plan.num_shards):
        path = folder.part(shard)
        if not folder.is_done(plan, shard):
            state = "broken" if os.path.exists(path) else "missing"
            problems.append(f"{path} is {state}")
            continue
        columns = _read(path)
        if columns["path"] != folder.inputs_of(shard):
            problems.append(f"{path} has other rows than its inputs")
        if set(columns["model_checksum"]) != {plan.model_checksum}:
            problems.append(f"{path} is of another model")
        errors += sum(error is not None for error in columns["error"])
        anomalous += sum(map(bool, columns["is_anomalous"]))
    if problems:
        raise ValueError(
            "The table of scores is not one row for each input: "
            f"{'; '.join(problems[:5])}. Remove what is wrong and start again: "
            "only that is scored anew"
        )
    return Summary(
        plan.num_inputs,
        plan.num_inputs - errors,
        errors,
        anomalous,
        plan.num_shards,
        plan.model_checksum,
    )


def _read(path: str) -> dict[str, Any]:
    names = ["path", "model_checksum", "error", "is_anomalous"]
    with pyarrow().parquet.ParquetFile(path) as file:
        return file.read(columns=names).to_pydict()
