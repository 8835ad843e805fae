"""Measures the plain auto-encoder with and without the block, over seeds.

Run: python -m benchmarks.detection [--screw FOLDER] [--output x.csv]

Data: crops of one photograph each (brick, grass, gravel, from scikit-image),
with drawn defects, and, where its folder is given, MVTec AD's screw, each image
of it corrected for its gain: as they come, the good test images are darker and
less contrasted than all others, which alone tells them from the defective ones.

The same recipe everywhere: 64x64 patches, Adam 2e-3 with cosine decay, mean
squared error, 5x5 smoothing, maximum. Prints a Markdown table of means and
sample standard deviations over seeds.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.common import option_parser, write_rows
from benchmarks.correct_gain import correct_gain
from keras_sspcab.applications import AutoEncoder
from keras_sspcab.compare.statistics import summarize
from keras_sspcab.compare.tables import markdown, percent
from keras_sspcab.data import (
    image_dataset,
    scan_image_folder,
    write_texture_folder,
)
from keras_sspcab.data.masks import load_mask
from keras_sspcab.metrics import image_metrics, pixel_metrics

METRICS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro")


def load(samples: Any, size: int) -> tuple[np.ndarray, ...]:
    """Returns gray images, labels and masks as arrays."""
    images = image_dataset(samples, (size, size), channels=1, batch_size=32)
    labels = np.array([sample.label for sample in samples])
    masks = [load_mask(sample, (size, size))[0] for sample in samples]
    return np.concatenate([*images]), labels, np.stack(masks)


def random_patches(
    images: np.ndarray, size: int, count: int, seed: int
) -> np.ndarray:
    """Returns crops at random places, half of them mirrored."""
    rng = np.random.default_rng(seed)
    patches = np.empty((count, size, size, 1), "float32")
    for index in range(count):
        image = images[rng.integers(len(images))]
        top, left = rng.integers(0, images.shape[1] - size + 1, 2)
        patch = image[top : top + size, left : left + size]
        patches[index] = patch[:, :: rng.choice([-1, 1])]
    return patches


def run(
    train: np.ndarray,
    test: tuple[np.ndarray, ...],
    sspcab: str | None,
    seed: int,
    steps: int,
    patch_size: int = 64,
    batch_size: int = 32,
) -> dict[str, float]:
    """Trains one model and returns its metrics."""
    keras.utils.set_random_seed(seed)
    model = AutoEncoder(
        input_shape=(None, None, 1), sspcab=sspcab, smoothing=5, pooling="max"
    )
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    model.compile(keras.optimizers.Adam(schedule), jit_compile=False)
    patches = random_patches(train, patch_size, steps * batch_size, seed)
    start = time.perf_counter()
    model.fit(patches, batch_size=batch_size, shuffle=False, verbose=0)
    seconds = time.perf_counter() - start
    images, labels, masks = test
    model.calibrate(train[: len(train) // 10])
    outputs = model.predict(images, batch_size=16, verbose=0)
    results = {
        **image_metrics(labels, outputs["anomaly_score"]),
        **pixel_metrics(masks, outputs["anomaly_map"]),
        "seconds": seconds,
    }
    return {name: results[name] for name in (*METRICS, "seconds")}


def format_table(rows: list[dict[str, Any]]) -> str:
    """Formats means and sample standard deviations over seeds, in percent."""
    header = ["data", "block", "image AUROC", "image AP"]
    header += ["pixel AUROC", "pixel AP", "AUPRO"]
    lines = []
    for data, block in dict.fromkeys((r["data"], r["block"]) for r in rows):
        group = [r for r in rows if (r["data"], r["block"]) == (data, block)]
        cells = []
        for name in METRICS:
            values = [row[name] for row in group]
            cells.append(percent(summarize(values), len(values)))
        lines.append([data, block, *cells])
    return markdown(header, lines)


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--textures", nargs="*", default=["brick", "gravel"])
    parser.add_argument("--screw", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        sources = [(name, Path(scratch) / name) for name in arguments.textures]
        for name, folder in sources:
            write_texture_folder(folder, texture=name)
        if arguments.screw:
            sources.append(("screw (gain corrected)", arguments.screw))
        for name, path in sources:
            folder = scan_image_folder(path)
            size = 64 if "screw" in name else 128
            train, _, _ = load(folder.train, size)
            test = load(folder.test, size)
            if "screw" in name:
                train = correct_gain(train)
                test = (correct_gain(test[0]), *test[1:])
            for seed in range(arguments.seeds):
                for sspcab in (None, "late"):
                    result = run(train, test, sspcab, seed, arguments.steps)
                    row = {
                        "data": name,
                        "block": sspcab or "none",
                        "seed": seed,
                    }
                    rows.append({**row, **result})
                    print(rows[-1], flush=True)
    print(format_table(rows))
    write_rows(arguments.output, rows)


if __name__ == "__main__":
    main()
