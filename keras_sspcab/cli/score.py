"""`keras-sspcab score`."""

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import Product, Sensitivity, Threshold, say

if TYPE_CHECKING:
    from keras_sspcab.scale import RayOptions, ScoreCounts, ScoringJob

_RAY = "--engine=ray: "


def score(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT_GLOB...",
            help="Patterns in quotes ('images/**/*.png'), folders, or files.",
            show_default=False,
        ),
    ],
    model: Annotated[
        Path,
        typer.Option(help="Run folder, .keras file, or SavedModel version."),
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder for the scores; begun ones are continued."),
    ],
    engine: Annotated[
        str, typer.Option(help="local (this process) or ray.")
    ] = "local",
    shard_size: Annotated[
        int, typer.Option(help="Images in a file of scores.")
    ] = 1000,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Images that are computed together. Default: 32, or fewer if "
            "they are large."
        ),
    ] = None,
    on_error: Annotated[
        str,
        typer.Option(
            help="Images that cannot be read: row (with the error) or raise."
        ),
    ] = "row",
    maps: Annotated[
        bool, typer.Option("--maps", help="Also write the anomaly maps.")
    ] = False,
    threshold: Threshold = None,
    sensitivity: Sensitivity = None,
    product: Product = None,
    workers: Annotated[
        int | None,
        typer.Option(help=f"{_RAY}processes. Default: as many as fit."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help=f"{_RAY}the cluster. Default: this machine."),
    ] = None,
    cpus_per_worker: Annotated[
        int | None,
        typer.Option(help=f"{_RAY}cores of each process. Default: 1."),
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(
            help=f"{_RAY}GPUs of each process, or a part. Default: 0."
        ),
    ] = None,
) -> None:
    """Score any number of images, into Parquet files.

    DIR/scores has exactly one row for each image, also when workers die. The
    same command continues where it was stopped.

    With --engine=ray, images, model and DIR must have the same paths on all
    machines.
    """
    if engine not in ("local", "ray"):
        raise ValueError(f"--engine must be local or ray. Received: {engine!r}")
    of_ray: dict[str, Any] = {
        "num_workers": workers,
        "address": address,
        "cpus_per_worker": cpus_per_worker,
        "gpus_per_worker": gpus_per_worker,
    }
    of_ray = {k: value for k, value in of_ray.items() if value is not None}
    if engine == "local" and of_ray:
        raise ValueError(
            "--workers, --address, --cpus-per-worker and --gpus-per-worker are "
            f"for --engine ray. Received: {', '.join(of_ray)} with --engine "
            "local"
        )
    import_backend()
    from keras_sspcab.export import load_scorer
    from keras_sspcab.scale import RayOptions, ScoringJob
    from keras_sspcab.scale.engines import check_engine

    options = RayOptions(**of_ray)
    # Before the model is loaded, which takes time.
    check_engine(engine)
    if engine == "ray":
        import tensorflow as tf

        # They are for the workers.
        tf.config.set_visible_devices([], "GPU")
    # Workers may have another working folder.
    path = os.path.abspath(model)
    load = functools.partial(load_scorer, path, threshold, sensitivity, product)
    scorer = load()
    job = ScoringJob.start(
        inputs,
        load,
        scorer,
        out,
        shard_size,
        maps,
        batch_size,
        on_error,
    )
    counts = _score(job, engine, scorer, options)
    say(
        f"{counts.num_anomalous} of {counts.num_scored} anomalous"
        if scorer.calibration is None or scorer.calibration.is_calibrated
        else "The model is not calibrated: nothing is flagged."
    )
    if counts.num_errors:
        say(
            f"{counts.num_errors} images could not be scored; the column "
            "`error` says why.",
            style="yellow",
        )
    _tell_drift(counts)
    noun = "file" if counts.num_shards == 1 else "files"
    say(
        f"Wrote {counts.num_inputs} rows in {counts.num_shards} {noun} to "
        f"{out / 'scores'}",
        style="green",
    )


def _tell_drift(counts: "ScoreCounts") -> None:
    for drift in counts.drifts:
        say(f"{drift.describe()}.", style="yellow")
    if counts.drifts:
        # The order of files is not that of time.
        say(
            f"That is the mean of all {counts.num_compared} images beside the "
            f"normal ones of the model. {counts.drifts[0].advise()}."
        )
    if shards := counts.drifting_shards:
        first = ", ".join(f"part-{shard:05d}" for shard in shards[:5])
        more = f" and {len(shards) - 5} more" if len(shards) > 5 else ""
        say(
            f"{len(shards)} of {counts.num_shards} shards differ by "
            f"themselves: {first}{more}.",
            style="yellow",
        )


def _score(
    job: "ScoringJob", engine: str, scorer: Any, options: "RayOptions"
) -> Any:
    from keras_sspcab.cli._progress import ConsoleProgress
    from keras_sspcab.scale import score_shards

    total, num_pending = job.plan.num_shards, len(job.pending())
    if num_pending < total:
        done = total - num_pending
        say(f"Continuing: {done} of {total} shards are done.")
    try:
        with ConsoleProgress().count("Scoring", num_pending) as advance:
            return score_shards(
                job, engine, scorer, options, lambda shard: advance()
            )
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(
            "Stopped. The same command continues."
        ) from error
