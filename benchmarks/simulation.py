"""Measures DRAEM's anomaly simulation, alone and as a share of training.

Run: python -m benchmarks.simulation [--output x.csv]

Images a second of `keras_sspcab.data.simulate_anomalies`, with textures from
scikit-image's pictures and from a temporary folder of JPEG files made of them,
and the processor time that an image takes: on a busy machine only the latter
means much. Then the time of an image in a training step of DRAEM, on data that
is ready, and the share that the simulation has of it: wall time by wall time.
Prints a Markdown table.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from skimage import data as pictures

from benchmarks.common import option_parser, write_rows
from keras_sspcab.data import simulate_anomalies


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
            crop.save(folder / f"{name}-{i}.jpg", quality=90)


def time_simulation(
    images: np.ndarray, textures: Any, seconds: float, repeats: int
) -> tuple[float, float]:
    """Returns wall and processor time of an image, in seconds: medians."""
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


def time_step(images: np.ndarray, base_width: int, repeats: int) -> float:
    """Returns the median time of an image in a training step of DRAEM."""
    from keras_sspcab.applications import DRAEM

    model = DRAEM(input_shape=images.shape[1:], base_width=base_width)
    model.compile()
    dataset = tf.data.Dataset.from_tensors(images).repeat(2 + repeats)
    times = []
    for x, y in list(simulate_anomalies(dataset)):
        start = time.perf_counter()
        model.train_on_batch(x, y)
        times.append(time.perf_counter() - start)
    # The first two compile.
    return float(np.median(times[2:])) / len(images)


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--base-width", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--no-training", action="store_true", help="measure no training step"
    )
    options = parser.parse_args()
    shape = (options.batch_size, options.size, options.size, 3)
    images = np.random.default_rng(0).random(shape, "float32")
    step = float("nan")
    if not options.no_training:
        step = time_step(images, options.base_width, options.repeats)
    print("| textures | images/s | ms/image | processor, ms/image ", end="")
    print("| training step, ms/image | share |\n|---|---|---|---|---|---|")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_textures(Path(folder))
        for name, textures in (("embedded", None), ("folder", folder)):
            wall, busy = time_simulation(
                images, textures, options.seconds, options.repeats
            )
            row: dict[str, Any] = {
                "textures": name,
                "size": options.size,
                "batch_size": options.batch_size,
                "images_per_second": 1 / wall,
                "milliseconds_per_image": 1000 * wall,
                "processor_milliseconds_per_image": 1000 * busy,
            }
            print(f"| {name} | {1 / wall:.0f} | {1000 * wall:.2f} ", end="")
            print(f"| {1000 * busy:.2f} ", end="")
            if options.no_training:
                print("| - | - |")
            else:
                row["step_milliseconds_per_image"] = 1000 * step
                row["share"] = wall / step
                print(f"| {1000 * step:.1f} | {100 * wall / step:.1f} % |")
            rows.append(row)
    write_rows(options.output, rows)


if __name__ == "__main__":
    main()
