"""`keras-sspcab score`."""

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_sspcab.cli._console import command, say

if TYPE_CHECKING:
    from keras_sspcab.scale import Job, RayOptions

_ENGINES = ("local", "ray")
_RAY = "--engine=ray: "


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command()(command(score))


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
        typer.Option(help="Folder for the scores; one begun is gone on with."),
    ],
    engine: Annotated[
        str, typer.Option(help="local (this process) or ray.")
    ] = "local",
    shard_size: Annotated[
        int, typer.Option(help="Images in a file of scores.")
    ] = 1000,
    batch_size: Annotated[
        int, typer.Option(help="Images that are computed together.")
    ] = 32,
    on_error: Annotated[
        str,
        typer.Option(
            help="Images that cannot be read: row (with the error) or raise."
        ),
    ] = "row",
    maps: Annotated[
        bool, typer.Option("--maps", help="Also write the anomaly maps.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(help=f"{_RAY}processes. Default: as many as fit."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help=f"{_RAY}the cluster. Default: this machine."),
    ] = None,
    cpus_per_worker: Annotated[
        int, typer.Option(help=f"{_RAY}cores of each process.")
    ] = 1,
    gpus_per_worker: Annotated[
        float, typer.Option(help=f"{_RAY}GPUs of each process, or a part.")
    ] = 0.0,
) -> None:
    """Score any number of images, into Parquet files.

    DIR/scores has exactly one row for each image, also when workers die. The
    same command goes on where it was stopped.

    With --engine=ray, images, model and DIR must have the same paths on all
    machines.
    """
    if engine not in _ENGINES:
        raise ValueError(f"--engine must be local or ray. Received: {engine!r}")
    if engine == "local" and (workers is not None or address is not None):
        raise ValueError(
            "--workers and --address are for --engine ray. Received: "
            f"--workers={workers}, --address={address}"
        )
    options = _prepare(
        engine, workers, address, cpus_per_worker, gpus_per_worker
    )
    from keras_sspcab.cli._maps import save_map
    from keras_sspcab.cli._scorer import load_scorer
    from keras_sspcab.scale import Job, Plan, ScoreFolder, list_inputs

    # Workers may have another working folder.
    path = os.path.abspath(model)
    scorer = load_scorer(path)
    found = list_inputs(inputs)
    plan = Plan.make(
        found,
        scorer.checksum,
        scorer.image_size,
        scorer.channels,
        shard_size,
        maps,
    )
    job = Job(
        os.path.abspath(out),
        plan,
        functools.partial(load_scorer, path),
        batch_size,
        on_error,
        save_map,
    )
    goes_on = ScoreFolder(out).start(plan, found)
    summary = _run(job, engine, scorer, options, goes_on)
    say(
        f"{summary.num_anomalous} of {summary.num_scored} anomalous"
        if scorer.is_calibrated
        else "The model is not calibrated: nothing is flagged."
    )
    if summary.num_errors:
        say(
            f"{summary.num_errors} images could not be scored; the column "
            "`error` says why.",
            style="yellow",
        )
    count = summary.num_shards
    say(
        f"Wrote {summary.num_inputs} rows in {count} "
        f"{'file' if count == 1 else 'files'} to {out / 'scores'}",
        style="green",
    )


def _prepare(
    engine: str,
    workers: int | None,
    address: str | None,
    cpus_per_worker: int,
    gpus_per_worker: float,
) -> "RayOptions":
    """Checks what is installed, before the model is loaded."""
    from keras_sspcab.cli._backend import import_backend

    import_backend()
    from keras_sspcab.scale import RayOptions
    from keras_sspcab.scale._optional import pyarrow, ray

    options = RayOptions(address, workers, cpus_per_worker, gpus_per_worker)
    pyarrow()
    if engine == "ray":
        import tensorflow as tf

        ray()
        # They are for the workers.
        tf.config.set_visible_devices([], "GPU")
    return options


def _run(
    job: "Job", engine: str, scorer: Any, options: "RayOptions", goes_on: bool
) -> Any:
    from keras_sspcab.cli._progress import frame_progress
    from keras_sspcab.scale import ScoreFolder, run_job

    pending = ScoreFolder(job.folder).pending(job.plan)
    total = job.plan.num_shards
    if goes_on:
        say(f"Going on: {total - len(pending)} of {total} shards are done.")
    try:
        with frame_progress("Scoring", len(pending)) as advance:
            return run_job(
                job,
                engine,
                scorer,
                options,
                pending,
                on_shard=lambda shard: advance(),
            )
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(
            "Stopped. The same command goes on with it."
        ) from error
