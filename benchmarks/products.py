"""Measures several products in one model against a model for each.

Run: python -m benchmarks.products SCREW TILE [--work FOLDER] [--output x.json]

SCREW is MVTec AD's screw, or laid out like it, of which the gain is corrected;
TILE are the magnetic tiles. Bricks and grass with drawn defects are added. All
at the default settings, seed 0.

metrics: image AUROC and flagged images of the model of each product, as it is
trained alone, and of the joined model, told the product and not told.
recognition: share of the test images, with and without defects, that are taken
for their product; and of photographs of textures (with --textures FOLDER, in
folders of a kind each) that are told to be none of them.
size, time: of the `.keras` files, and milliseconds an image, the median of 50
calls, one image at a time; the calls of both models alternate.
"""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import option_parser
from benchmarks.correct_gain import correct_folder
from keras_sspcab.data import (
    image_dataset,
    scan_image_folder,
    write_texture_folder,
)
from keras_sspcab.metrics import auroc
from keras_sspcab.runs import Run, load_detector

OUTPUTS = ("anomaly_score", "is_anomalous", "product_index")


def write_lines(folder: Path, screw: Path, tile: Path) -> Path:
    """Writes a folder of four products, unless it is there."""
    lines = folder / "lines"
    if not lines.exists():
        folder.mkdir(parents=True, exist_ok=True)
        correct_folder(screw, lines / "screw")
        shutil.copytree(tile, lines / "tile")
        for texture in ("brick", "grass"):
            write_texture_folder(lines / texture, texture)
    return lines


def outputs_on(model: Any, samples: Any, **options: Any) -> dict[str, Any]:
    """Returns scores, flags and products of images."""
    height, width, channels = model.input_shape[1:]
    parts = [
        model.predict_on_batch(images, **options)
        for images in image_dataset(
            samples, (height, width), channels, batch_size=8
        )
    ]
    names = [name for name in OUTPUTS if name in parts[0]]
    return {
        name: np.concatenate([np.asarray(part[name]) for part in parts])
        for name in names
    }


def measure(run: Run, textures: Path | None) -> dict[str, Any]:
    """Compares the model of a run with those of its products."""
    model: Any = run.model
    result: dict[str, Any] = {"products": {}}
    for number, name in enumerate(model.products):
        part = run.product(name)
        single = load_detector(part.path)
        samples = scan_image_folder(part.config.data.path).test
        labels = np.array([sample.label for sample in samples])
        alone = outputs_on(single, samples)
        told = outputs_on(model, samples, product=name)
        found = outputs_on(model, samples)
        right = found["product_index"] == number
        result["products"][name] = {
            "normal": _count(labels == 0),
            "defective": _count(labels == 1),
            "image_auroc": {
                "alone": auroc(labels, alone["anomaly_score"]),
                "told": auroc(labels, told["anomaly_score"]),
                "recognized": auroc(labels, found["anomaly_score"]),
            },
            "largest_difference_told": float(
                np.abs(alone["anomaly_score"] - told["anomaly_score"]).max()
            ),
            "flags_that_differ": {
                "told": _count(alone["is_anomalous"] != told["is_anomalous"]),
                "recognized": _count(
                    alone["is_anomalous"] != found["is_anomalous"]
                ),
            },
            "recognized": {
                "normal": _count(right[labels == 0]),
                "defective": _count(right[labels == 1]),
            },
            "unknown": _count(found["product_index"] < 0),
            "megabytes_alone": os.path.getsize(part.file("model.keras")) / 1e6,
            "milliseconds": time_both(single, model, samples[0], name),
        }
    result["megabytes"] = os.path.getsize(run.file("model.keras")) / 1e6
    if textures is not None:
        others = scan_image_folder(textures, "plain").train
        found = outputs_on(model, others)["product_index"]
        result["textures"] = {
            "images": len(others),
            "unknown": _count(found < 0),
            "taken_for": {
                name: _count(found == number)
                for number, name in enumerate(model.products)
            },
        }
    return result


def _count(values: Any) -> int:
    return int(np.count_nonzero(values))


def time_both(
    single: Any, model: Any, sample: Any, name: str
) -> dict[str, float]:
    """Returns the median time of an image by a model alone and by both."""
    size, channels = single.input_shape[1:3], single.input_shape[3]
    image = next(iter(image_dataset([sample], size, channels))).numpy()
    number = np.array([model.products.index(name)], "int32")
    calls = {
        "alone": lambda: single.predict_on_batch(image),
        "told": lambda: model.graph_with_options().predict_on_batch(
            {"image": image, "product": number}
        ),
        "recognized": lambda: model.predict_on_batch(image),
    }
    times: dict[str, list[float]] = {key: [] for key in calls}
    for _ in range(55):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            times[key].append(1000 * (time.perf_counter() - start))
    return {key: float(np.median(each[5:])) for key, each in times.items()}


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("screw", type=Path)
    parser.add_argument("tile", type=Path)
    parser.add_argument("--textures", type=Path)
    parser.add_argument("--work", type=Path, default=Path(".build/products"))
    arguments = parser.parse_args()
    lines = write_lines(arguments.work, arguments.screw, arguments.tile)
    path = arguments.work / "run"
    if (path / "run.json").exists():
        run = Run(path)
    else:
        settings = {"data.layout": "products"}
        run = Run.create(path, data=lines, settings=settings)
    if not run.is_finished:
        run.train(resume=run.exists)
    text = json.dumps(measure(run, arguments.textures), indent=1)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
