"""Measures how many images a second `keras-sspcab score` scores.

Run: python benchmarks/score.py [--output x.csv]

Made-up gray PNGs and the plain auto-encoder for images of their size. The
engine `local` uses all cores in one process; `ray` starts on this machine, with
one core for each worker, whose start (of Ray, TensorFlow and the model) is part
of the time. The rate behind it counts from the first finished shard on.

Prints a Markdown table of medians over repetitions.
"""

import argparse
import functools
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
from PIL import Image

from keras_sspcab.applications import AutoEncoder
from keras_sspcab.export import load_scorer
from keras_sspcab.runs.files import write_csv
from keras_sspcab.scale import RayOptions, ScoringJob, score_shards

# Name: engine and number of workers.
CASES = {
    "local": ("local", None),
    "ray, 1 worker": ("ray", 1),
    "ray, 2 workers": ("ray", 2),
}


def write_images(folder: Path, count: int, size: int) -> None:
    """Writes noise on gradients, so that a PNG costs what a photograph does."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, size)[:, None]
    for i in range(count):
        pixels = ramp + rng.integers(0, 55, (size, size))
        Image.fromarray(pixels.astype("uint8")).save(folder / f"{i:06d}.png")


def measure(
    case: str, root: Path, out: Path, shard_size: int, batch_size: int
) -> dict[str, float]:
    """Scores all images once; returns seconds and rates."""
    engine, workers = CASES[case]
    model = str(root / "model.keras")
    start = time.perf_counter()
    scorer = load_scorer(model)
    job = ScoringJob.start(
        [root / "images"],
        functools.partial(load_scorer, model),
        scorer,
        out,
        shard_size,
        batch_size=batch_size,
    )
    times: list[float] = []
    counts = score_shards(
        job,
        engine,
        scorer,
        RayOptions(num_workers=workers),
        on_shard=lambda shard: times.append(time.perf_counter()),
    )
    seconds = time.perf_counter() - start
    if counts.num_errors:
        raise ValueError(f"{counts.num_errors} images have no score")
    rest = counts.num_inputs - shard_size
    return {
        "seconds": seconds,
        "seconds_to_first_shard": times[0] - start,
        "images_per_second": counts.num_inputs / seconds,
        "images_per_second_after_first": rest / (times[-1] - times[0]),
    }


def format_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| engine | seconds | to the first shard | images/s | images/s "
        "from then on |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['engine']} | {row['seconds']:.1f} "
            f"| {row['seconds_to_first_shard']:.1f} "
            f"| {row['images_per_second']:.0f} "
            f"| {row['images_per_second_after_first']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--engines", nargs="*", default=list(CASES))
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--shard-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root / "images", arguments.images, arguments.size)
        model = AutoEncoder((arguments.size, arguments.size, 1))
        model.save(root / "model.keras")
        for case in arguments.engines:
            results = [
                measure(
                    case,
                    root,
                    root / f"{case}-{repetition}",
                    arguments.shard_size,
                    arguments.batch_size,
                )
                for repetition in range(arguments.repetitions)
            ]
            rows.append(
                {
                    "engine": case,
                    "images": arguments.images,
                    "size": arguments.size,
                    "shard_size": arguments.shard_size,
                    "batch_size": arguments.batch_size,
                    **{
                        name: float(np.median([r[name] for r in results]))
                        for name in results[0]
                    },
                }
            )
            print(rows[-1], flush=True)
    print(format_table(rows))
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_csv(str(arguments.output), list(rows[0]), rows)


if __name__ == "__main__":
    main()
