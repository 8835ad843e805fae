"""Compares ways to draw the block's weights, on crops of moving objects.

Run: python -m benchmarks.initializer --data ucsd_ped2 [--seeds 6]
        [--steps 484] [--output benchmarks/results/initializer.csv]

The plain auto-encoder of the paper learns gray crops of 64 x 64 pixels of what
moves in the training videos of UCSD Ped2, with its block in the late place. The
score of a test frame is the highest error of its objects. For each seed, which
draws the weights and orders the crops, it is trained twice, with
`initializer="keras"` and `"authors"`: the difference of both is one pair.

Prints the pairs, their mean difference, its 95 % interval, and the smallest
difference that so many pairs are likely to show. A file is written as it goes,
and what is in it is not measured again.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np

from benchmarks.common import option_parser, write_rows
from keras_sspcab.applications import AutoEncoder
from keras_sspcab.compare.statistics import detectable_difference, t_interval
from keras_sspcab.data.objects import MotionProposals
from keras_sspcab.data.video import (
    frame_labels,
    iterate_frames,
    scan_video_folder,
)
from keras_sspcab.metrics import micro_auc

SIZE, BATCH_SIZE = 64, 32
INITIALIZERS = ("keras", "authors")


def crops_of(video: Any, step: int) -> Iterator[np.ndarray]:
    """Yields the objects `(n, 64, 64, 1)` in each of some frames."""
    found = MotionProposals().boxes(video)
    frames = iterate_frames(video, None, 1)
    for index, (frame, boxes) in enumerate(zip(frames, found, strict=True)):
        if index % step:
            continue
        pieces = [
            cv2.resize(frame[top : bottom + 1, left : right + 1], (SIZE, SIZE))
            for left, top, right, bottom in boxes[:, :4].astype(int)
        ]
        shape = (-1, SIZE, SIZE, 1)
        yield np.reshape(np.array(pieces, "float32"), shape) / 255


def train(crops: np.ndarray, initializer: str, seed: int, steps: int) -> Any:
    """Returns a trained auto-encoder."""
    keras.utils.set_random_seed(seed)
    model = AutoEncoder(
        (SIZE, SIZE, 1),
        sspcab="late",
        sspcab_options={"initializer": initializer},
    )
    model.compile()
    order = np.random.default_rng(seed)
    count = steps * BATCH_SIZE
    epochs = -(-count // len(crops))
    chosen = np.concatenate(
        [order.permutation(len(crops)) for _ in range(epochs)]
    )[:count]
    model.fit(crops[chosen], batch_size=BATCH_SIZE, shuffle=False, verbose=0)
    return model


def frame_scores(model: Any, frames: list[np.ndarray]) -> np.ndarray:
    """Returns the highest score of the objects in each frame."""
    counts = [len(crops) for crops in frames]
    outputs = model.outputs_on(np.concatenate(frames), ["raw_score"])
    parts = np.split(outputs["raw_score"], np.cumsum(counts)[:-1])
    return np.array([part.max(initial=0.0) for part in parts])


def main() -> None:
    """Reads the options, measures and prints."""
    parser = option_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=484)
    parser.add_argument("--step", type=int, default=5, help="frames")
    parser.set_defaults(output=Path("benchmarks/results/initializer.csv"))
    options = parser.parse_args()

    setting = {
        "data": options.data.resolve().name,
        "steps": str(options.steps),
        "step": str(options.step),
    }
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    others: list[dict[str, Any]] = []
    if options.output.exists():
        with options.output.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if setting.items() <= row.items():
                    rows[row["seed"], row["initializer"]] = row
                else:
                    others.append(row)
    folder = scan_video_folder(options.data)
    crops = np.concatenate(
        [c for video in folder.train for c in crops_of(video, options.step)]
    )
    test = [list(crops_of(video, options.step)) for video in folder.test]
    labels = [frame_labels(v)[:: options.step] for v in folder.test]
    print(f"{len(crops)} crops, {sum(map(len, test))} test frames")
    for seed in range(options.seeds):
        for initializer in INITIALIZERS:
            key = str(seed), initializer
            if key not in rows:
                model = train(crops, initializer, seed, options.steps)
                scores = [frame_scores(model, frames) for frames in test]
                auc = micro_auc(scores, labels).value
                rows[key] = dict(zip(("seed", "initializer"), key, strict=True))
                rows[key] |= setting
                rows[key]["micro_auc"] = round(100 * auc, 3)
                write_rows(options.output, [*others, *rows.values()])
            print(f"seed {seed}, {initializer}: {rows[key]['micro_auc']}")
    values = np.array(
        [
            [float(rows[str(seed), name]["micro_auc"]) for name in INITIALIZERS]
            for seed in range(options.seeds)
        ]
    )
    differences = values[:, 1] - values[:, 0]
    low, high = t_interval(differences)
    smallest = detectable_difference(differences.std(ddof=1), len(differences))
    print(
        f"Means {values.mean(axis=0).round(2)}. Authors minus Keras: "
        f"{differences.mean():+.2f} ({low:+.2f} to {high:+.2f}); smallest "
        f"difference likely to be seen: {smallest:.2f}"
    )


if __name__ == "__main__":
    main()
