"""Measures how images are read, and the memory of an evaluation.

Run: python -m benchmarks.data [--only reading predict cache evaluate]

- `reading`: `image_dataset` against a plain `tf.data` pipeline that reads,
  decodes, resizes and batches, in turns; ratios of processor time and of time.
- `predict`: share of `predict_images` that is the model's own time, with the
  default detector at its default size and photographs of 1024x1024 pixels.
- `cache`: memory that `cache=True` takes at the peak, in bytes a value.
- `evaluate`: memory of the pixel metrics after more and more test images of
  256x256 pixels, with eight kinds of defects, and how far figures are off.

Photographs are scikit-image's, shifted. Medians, with the lowest and highest.
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from skimage import data

from keras_sspcab.applications import MultiScalePaDiM
from keras_sspcab.data import ImageSample, clear_image_cache, image_dataset
from keras_sspcab.metrics import PixelScores
from keras_sspcab.runs.prediction import predict_images

# Format, side of the files, side of the images.
CASES = [
    *(("png", 256, 256), ("jpg", 256, 256), ("bmp", 256, 256)),
    *(("png", 1024, 256), ("jpg", 1024, 256), ("png", 512, 512)),
]
ROUNDS = 9


def write_images(folder: Path, kind: str, side: int, count: int) -> list[str]:
    """Writes a photograph, shifted by some pixels in each file."""
    photo = Image.fromarray(data.astronaut()).resize((side, side))
    paths = [str(folder / f"{i}-{side}.{kind}") for i in range(count)]
    for i, path in enumerate(paths):
        pixels = np.roll(np.asarray(photo), 5 * i, axis=1)
        Image.fromarray(pixels).save(path)
    return paths


def plain_dataset(paths: list[str], kind: str, side: int) -> tf.data.Dataset:
    """Returns the pipeline that one would write for these files alone."""
    decode = {
        "png": tf.io.decode_png,
        "jpg": tf.io.decode_jpeg,
        "bmp": tf.io.decode_bmp,
    }[kind]

    def load(path: tf.Tensor) -> tf.Tensor:
        pixels = decode(tf.io.read_file(path), 3)
        image = tf.image.convert_image_dtype(pixels, tf.float32)
        if f"-{side}." not in paths[0]:
            image = tf.image.resize(image, (side, side), antialias=True)
        return tf.ensure_shape(image, (side, side, 3))

    files = tf.data.Dataset.from_tensor_slices(paths)
    images = files.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    return images.batch(16).prefetch(tf.data.AUTOTUNE)


def clock(dataset: tf.data.Dataset) -> np.ndarray:
    """Returns the processor time and the time that it takes to iterate."""
    start = time.process_time(), time.perf_counter()
    for _ in dataset:
        pass
    end = time.process_time(), time.perf_counter()
    return np.subtract(end, start)


def describe(values: Any) -> str:
    """Returns median, lowest and highest."""
    return (
        f"{statistics.median(values):.2f} ({min(values):.2f} to "
        f"{max(values):.2f})"
    )


def measure_reading(folder: Path) -> None:
    """Prints the ratios of each case."""
    print("| files | images | processor time | time |\n|---|---|---|---|")
    for kind, side, size in CASES:
        paths = write_images(folder, kind, side, 96 if side < 1000 else 32)
        plain = plain_dataset(paths, kind, size)
        ours = image_dataset([ImageSample(path) for path in paths], size)
        ratios = []
        for _ in range(-1, ROUNDS):
            base = clock(plain)
            ratios.append(clock(ours) / base)
        processor, wall = map(describe, zip(*ratios[1:], strict=True))
        print(f"| {kind}, {side} | {size} | {processor} | {wall} |", flush=True)


def measure_predict(folder: Path) -> None:
    """Prints the model's share of the time."""
    for kind in ("png", "jpg"):
        paths = write_images(folder, kind, 1024, 48)
        samples = [ImageSample(path) for path in paths[:16]]
        model: Any = MultiScalePaDiM()
        size = model.input_shape[1:3]
        model.fit(np.concatenate([*image_dataset(samples, size)]))
        model.calibrate()
        run, spent = model.predict_on_batch, [0.0]

        def timed(
            images: Any,
            run: Callable[[Any], Any] = run,
            spent: list[float] = spent,
        ) -> Any:
            start = time.perf_counter()
            outputs = run(images)
            spent[0] += time.perf_counter() - start
            return outputs

        model.predict_on_batch = timed
        shares = []
        for _ in range(4):
            spent[0], start = 0.0, time.perf_counter()
            predict_images(model, paths)
            shares.append(spent[0] / (time.perf_counter() - start))
        print(f"- {kind}: share {describe(shares[1:])}", flush=True)


def peak() -> float:
    """Returns the most memory that this process had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def measure_cache(folder: Path) -> None:
    """Prints the memory of images that are kept, of their size and others."""
    for side in (512, 500):
        paths = write_images(folder, "png", side, 400)
        samples = [ImageSample(path) for path in paths]
        list(image_dataset(samples[:32], 512, cache=True))
        clear_image_cache()
        before = peak()
        image_dataset(samples, 512, cache=True)
        taken = (peak() - before) * 1e6 / (len(paths) * 512**2 * 3)
        print(f"- files of {side}, images of 512: {taken:.2f} bytes a value")
        clear_image_cache()


def gather(num_images: int, is_exact: bool = False) -> PixelScores:
    """Gathers made-up maps, by kind of defect as an evaluation does."""
    rng = np.random.default_rng(0)
    mask = np.zeros((256, 256), bool)
    mask[60:120, 60:180] = True
    limits = (2**40, 2**40) if is_exact else ()
    parts = [PixelScores(*limits) for _ in range(9)]
    for i in range(num_images):
        kind = 1 + i % 8 if i % 3 else 0
        scores = rng.standard_normal((256, 256), "float32")
        scores = np.exp(scores + mask * bool(kind))
        parts[kind].add(mask if kind else None, scores)
        if not is_exact:
            PixelScores.bound(parts)
    return PixelScores.joined(parts)


def measure_evaluate(num_images: int) -> None:
    """Prints the peak of memory, and how far rounded figures are off."""
    base = peak()
    for count in (num_images // 4, num_images):
        gather(count).compute()
        print(f"- {count:,} images: {peak() - base:,.0f} MB", flush=True)
    expected = gather(1_000, is_exact=True).compute()
    found = gather(1_000).compute()
    worst = max(abs(found[name] - expected[name]) for name in found)
    print(f"- 1,000 images: figures off by {worst:.1e} at most")


def main() -> None:
    """Measures what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = ["reading", "predict", "cache", "evaluate"]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--images", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            print(f"\n{name}", flush=True)
            if name == "evaluate":
                measure_evaluate(options.images)
            else:
                globals()[f"measure_{name}"](Path(folder))


if __name__ == "__main__":
    main()
