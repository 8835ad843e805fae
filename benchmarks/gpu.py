"""DRAEM at full width, and a served model in bfloat16, on a GPU.

Run: CUDA_VISIBLE_DEVICES=0 python -m benchmarks.gpu draem|serving --out FOLDER
        [--data FOLDER] [--textures FOLDER] [--smoke]
`benchmarks/gpu.sh` does it all.

draem: training steps a second without and with the block, in float32 with
TensorFloat-32 and in mixed bfloat16, both models taking turns; then both are
trained in turns on the normal images of --data until the time is over, and
evaluated after each round: `draem.csv` has a row for each.

serving: a detector exported as SavedModel in float32 and in bfloat16 compiled
by XLA, run by TensorFlow's C API as TensorFlow Serving does, in turns.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.common import write_rows
from keras_sspcab.applications import DRAEM, AutoEncoder
from keras_sspcab.data import image_dataset, scan_image_folder
from keras_sspcab.data.masks import load_mask
from keras_sspcab.export import export_model
from keras_sspcab.metrics import image_metrics, pixel_metrics
from tests.export.serving_loader import ServedModel

BLOCKS = {"off": None, "on": ("reconstructive", "discriminative")}
POLICIES = ("float32", "mixed_bfloat16")
# Of the 230 seconds that `gpu.sh` gives.
SECONDS_OF_TRAINING = 120.0


def build(block: str, smoke: bool, textures: str | None) -> DRAEM:
    """Returns a compiled DRAEM."""
    keras.utils.set_random_seed(0)
    side, width = (32, 2) if smoke else (256, 128)
    model = DRAEM(
        (side, side, 3),
        sspcab=BLOCKS[block],
        base_width=width,
        texture_folder=textures,
    )
    model.compile(learning_rate=1e-4)
    return model


def time_steps(options: argparse.Namespace) -> None:
    """Prints training steps a second of a batch of 8, in turns."""
    rows = []
    for policy in POLICIES[: 1 if options.smoke else None]:
        keras.config.set_dtype_policy(policy)
        models = {b: build(b, options.smoke, None) for b in BLOCKS}
        shape = models["off"].input_shape[1:]
        images = np.random.default_rng(0).random((8, *shape), "float32")
        # Simulated once: the step is what is measured.
        batches = {
            b: next(
                iter(
                    model.prepare_training_data(
                        tf.data.Dataset.from_tensors(images)
                    )
                )
            )
            for b, model in models.items()
        }
        times: dict[str, list[float]] = {b: [] for b in BLOCKS}
        for count in range(3 if options.smoke else 13):
            for block, model in models.items():
                began = time.perf_counter()
                model.train_on_batch(*batches[block])
                if count > 2 or options.smoke:
                    times[block].append(time.perf_counter() - began)
        medians = {b: statistics.median(t) for b, t in times.items()}
        for block, seconds in medians.items():
            row = {"policy": policy, "block": block}
            rows.append({**row, "steps_a_second": 1 / seconds})
            print(f"{policy}, {block}: {1 / seconds:.2f} steps/s", flush=True)
        del models
        keras.backend.clear_session()
    keras.config.set_dtype_policy("float32")
    write_rows(options.out / "draem_steps.csv", rows)


def train_in_turns(options: argparse.Namespace) -> None:
    """Trains both models until the time is over."""
    folder = scan_image_folder(options.data)
    keras.config.set_dtype_policy(
        "float32" if options.smoke else "mixed_bfloat16"
    )
    models = {b: build(b, options.smoke, options.textures) for b in BLOCKS}
    size = models["off"].input_shape[1:3]
    test = np.concatenate([*image_dataset(folder.test, size, batch_size=8)])
    labels = np.array([sample.label for sample in folder.test])
    masks = [load_mask(sample, size)[0] for sample in folder.test]
    steps_a_round = 4 if options.smoke else 200
    deadline = time.perf_counter() + (
        0 if options.smoke else SECONDS_OF_TRAINING
    )
    rows: list[dict[str, Any]] = []
    while not rows or time.perf_counter() < deadline:
        number = len(rows) // len(models)
        for block, model in models.items():
            data = image_dataset(
                folder.train,
                size,
                batch_size=8,
                shuffle=True,
                epoch=100 * number,
                epochs=100,
                cache=True,
            ).take(steps_a_round)
            model.fit(data, verbose=0)
            outputs = model.outputs_on(test, ["raw_score", "anomaly_map"])
            image = image_metrics(labels, outputs["raw_score"])
            pixel = pixel_metrics(masks, list(outputs["anomaly_map"]))
            steps = (number + 1) * steps_a_round
            found = {
                "image_auroc": image["image_auroc"],
                "pixel_auroc": pixel["pixel_auroc"],
                "pixel_ap": pixel["pixel_ap"],
            }
            rows.append({"block": block, "steps": steps, **found})
            texts = [f"{value:.3f}" for value in found.values()]
            print(block, steps, *texts, flush=True)
            write_rows(options.out / "draem.csv", rows)


def serve(options: argparse.Namespace) -> None:
    """Times SavedModels by the C API, and compares their scores."""
    side, batch = (32, 2) if options.smoke else (256, 16)
    keras.utils.set_random_seed(0)
    model = AutoEncoder((side, side, 3), pooling="max")
    images = np.random.default_rng(0).random((batch, side, side, 3), "float32")
    model.calibrate(images)
    served = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in {
            "float32": {},
            "bfloat16, XLA": {"precision": "bfloat16", "jit_compile": True},
        }.items():
            result = export_model(
                model,
                f"{folder}/{name[:8]}",
                "savedmodel",
                images=images,
                **arguments,
            )
            served[name] = ServedModel(result.path)
        times: dict[str, list[float]] = {name: [] for name in served}
        scores = {}
        for count in range(5 if options.smoke else 50):
            for name, session in served.items():
                began = time.perf_counter()
                outputs = session.run("serving_default", {"image": images})
                if count > 2:
                    times[name].append(time.perf_counter() - began)
                scores[name] = outputs["anomaly_score"]
    first, second = scores.values()
    rows = []
    for name, each in times.items():
        milliseconds = 1000 * statistics.median(each)
        rows.append({"form": name, "milliseconds": milliseconds})
        print(f"{name}: {milliseconds:.3g} ms for {batch} images of {side}")
    print(f"Largest difference of scores: {np.abs(first - second).max():.3g}")
    write_rows(options.out / "serving.csv", rows)


def main() -> None:
    """Reads the options and measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("part", choices=("draem", "serving"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data")
    parser.add_argument("--textures")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    if options.part == "serving":
        serve(options)
        return
    time_steps(options)
    if options.data:
        train_in_turns(options)


if __name__ == "__main__":
    main()
