"""Measures DRAEM's anomaly simulation, alone and as a share of training.

Run: python benchmarks/simulation.py [--output x.csv]

Images a second of `keras_sspcab.data.simulate_anomalies`, with textures from
scikit-image's pictures and from a temporary folder of JPEG files made of them,
and the processor time that an image takes: on a busy machine only the latter
means much. Then the time of an image in a training step of DRAEM, on data that
is ready, and the share that the simulation has of it: wall time by wall time.
Prints a Markdown table.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import tensorflow as tf
from PIL import Image
from skimage import data as pictures

from keras_sspcab.data import simulate_anomalies
from keras_sspcab.runs.files import write_csv

#: Trains on one batch.
Step = Callable[[Any, Any], Any]


def draem_step(size: int, base_width: int) -> Step:
    """Returns the training step of DRAEM at its default settings."""
    from keras_sspcab.applications import DRAEM

    model = DRAEM(input_shape=(size, size, 3), base_width=base_width)
    model.compile()
    return model.train_on_batch


def write_textures(folder: Path) -> None:
    """Writes 20 JPEG files of 640 x 480, about as large as those of DTD."""
    rng = np.random.default_rng(0)
    for name in ("brick", "coffee", "grass", "hubble_deep_field", "retina"):
        picture = Image.fromarray(getattr(pictures, name)()).convert("RGB")
        for i in range(4):
            width, height = picture.size
            left, top = rng.integers(0, (width // 3, height // 3))
            box = (left, top, left + width // 2, top + height // 2)
            crop = picture.crop(box).resize((640, 480))
            target = folder / name / f"{i}.jpg"
            target.parent.mkdir(exist_ok=True)
            crop.save(target, quality=90)


def time_simulation(
    images: np.ndarray, textures: Any, seconds: float, repeats: int
) -> tuple[float, float]:
    """Returns wall and processor time of an image, in seconds.

    Medians of several intervals of one iteration, after a warm-up.
    """
    dataset = tf.data.Dataset.from_tensors(images).repeat()
    iterator = iter(simulate_anomalies(dataset, textures))
    for _ in range(10):
        next(iterator)
    times = []
    for _ in range(repeats):
        count, start, busy = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() < start + seconds:
            next(iterator)
            count += len(images)
        wall = time.perf_counter() - start
        times.append((wall / count, (time.process_time() - busy) / count))
    wall, busy = np.median(times, axis=0)
    return float(wall), float(busy)


def time_step(step: Step, images: np.ndarray, repeats: int) -> float:
    """Returns the median time of a training step, divided by the batch."""
    dataset = tf.data.Dataset.from_tensors(images).repeat(2 + repeats)
    batches = list(simulate_anomalies(dataset))
    times = []
    for x, y in batches:
        start = time.perf_counter()
        step(x, y)
        times.append(time.perf_counter() - start)
    # The first two compile.
    return float(np.median(times[2:])) / len(images)


def measure(step: Step | None, arguments: Any) -> list[dict[str, Any]]:
    """Measures both sources of textures; and `step`, if there is one."""
    rng = np.random.default_rng(0)
    shape = (arguments.batch_size, arguments.size, arguments.size, 3)
    images = rng.random(shape, "float32")
    step_time = time_step(step, images, arguments.repeats) if step else None
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_textures(Path(folder))
        for name, textures in (("embedded", None), ("folder", folder)):
            wall, busy = time_simulation(
                images, textures, arguments.seconds, arguments.repeats
            )
            row = {
                "textures": name,
                "size": arguments.size,
                "batch_size": arguments.batch_size,
                "images_per_second": 1 / wall,
                "milliseconds_per_image": 1000 * wall,
                "processor_milliseconds_per_image": 1000 * busy,
            }
            if step_time is not None:
                row["step_milliseconds_per_image"] = 1000 * step_time
                row["share"] = wall / step_time
            rows.append(row)
    return rows


def format_table(rows: list[dict[str, Any]]) -> str:
    """Formats the results as a Markdown table."""
    lines = [
        "| textures | images/s | ms/image | processor, ms/image "
        "| training step, ms/image | share |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        step, share = "-", "-"
        if "share" in row:
            step = f"{row['step_milliseconds_per_image']:.1f}"
            share = f"{100 * row['share']:.1f} %"
        lines.append(
            f"| {row['textures']} | {row['images_per_second']:.0f} "
            f"| {row['milliseconds_per_image']:.2f} "
            f"| {row['processor_milliseconds_per_image']:.2f} "
            f"| {step} | {share} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--base-width", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--no-training", action="store_true", help="measure no training step"
    )
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    step = None
    if not arguments.no_training:
        step = draem_step(arguments.size, arguments.base_width)
    rows = measure(step, arguments)
    print(format_table(rows))
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_csv(str(arguments.output), list(rows[0]), rows)


if __name__ == "__main__":
    main()
