"""Measures what aligning images with a reference gives: errors and AUROC.

Run: python -m benchmarks.alignment FOLDER [--output x.csv]

FOLDER is MVTec AD's screw, or laid out like it; the gain of each image is
corrected. Screws lie at all angles as they are. "moved" ones, normal and test
images, were turned by any angle and shifted by up to a tenth of the image, as
the seed says.

errors: every other test image is registered as it is and moved; what the second
transform differs from the known one after the first is the error, in degrees
and in pixels, the root of the mean square over the middle half of the image.
Beside it OpenCV, with a reference image: `phaseCorrelate` at 72 angles, and
`findTransformECC` from the best of these and from the opposite angle.

detection: hosts with and without `ImageRegistration`, image AUROC as mean and
standard deviation over seeds, and what aligning adds, with the interval of 95 %
of a bootstrap over the test images, the same for both.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np

from benchmarks.common import load, option_parser, write_rows
from benchmarks.correct_gain import correct_gain
from keras_sspcab.applications import MultiScalePaDiM, PaDiM
from keras_sspcab.compare.statistics import summarize
from keras_sspcab.compare.tables import markdown, percent
from keras_sspcab.data import scan_image_folder
from keras_sspcab.layers import ImageRegistration
from keras_sspcab.metrics import image_metrics

HOSTS = {"MultiScalePaDiM": MultiScalePaDiM, "PaDiM": PaDiM}


def rigid(degrees: float, right: float, down: float, size: int) -> np.ndarray:
    """Returns a transform about the center, as a 3 x 3 matrix."""
    center = (size - 1) / 2
    angle = np.deg2rad(degrees)
    matrix = np.eye(3)
    matrix[:2, :2] = [
        [np.cos(angle), -np.sin(angle)],
        [np.sin(angle), np.cos(angle)],
    ]
    corner = matrix[:2, :2] @ [center, center]
    matrix[:2, 2] = np.array([center + right, center + down]) - corner
    return matrix


def move(images: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Turns and shifts images at random; returns them and how."""
    rng = np.random.default_rng(seed)
    size = images.shape[1]
    limit = 0.1 * size
    transforms = [
        rigid(rng.uniform(-180, 180), *rng.uniform(-limit, limit, 2), size)
        for _ in images
    ]
    moved = [
        cv2.warpAffine(
            image,
            transform[:2],
            (size, size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for image, transform in zip(images, transforms, strict=True)
    ]
    return np.stack(moved).reshape(images.shape), np.stack(transforms)


# === Errors ===


def registered(layer: ImageRegistration, images: np.ndarray) -> dict[str, Any]:
    """Returns the outputs of the layer as arrays."""
    image = keras.Input(images.shape[1:])
    model = keras.Model(image, layer(image))
    return model.predict(images, batch_size=8, verbose=0)


def opencv(reference: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function that registers images by OpenCV alone."""
    size, small = len(reference), 96
    gray = np.ascontiguousarray(reference.mean(axis=-1))
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-5)

    def shrink(image: np.ndarray) -> np.ndarray:
        return cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)

    turned = [
        cv2.warpAffine(
            shrink(gray),
            rigid(degrees, 0, 0, small)[:2],
            (small, small),
            borderMode=cv2.BORDER_REPLICATE,
        )
        for degrees in range(0, 360, 5)
    ]

    def refine(image: np.ndarray, start: np.ndarray) -> tuple[float, Any]:
        try:
            return cv2.findTransformECC(
                gray,
                image,
                start[:2].astype("float32"),
                cv2.MOTION_EUCLIDEAN,
                criteria,
                None,
                5,
            )
        except cv2.error:  # it has not converged
            return -1.0, start[:2]

    def register(images: np.ndarray) -> np.ndarray:
        found = []
        for image in images.mean(axis=-1):
            tried = [cv2.phaseCorrelate(part, shrink(image)) for part in turned]
            best = int(np.argmax([response for _, response in tried]))
            # Upside down looks nearly the same to it.
            starts = []
            for angle in (best, (best + 36) % 72):
                shift = np.array(tried[angle][0]) * size / small
                starts.append(rigid(5 * angle, *shift, size))
            refined = [refine(image, start) for start in starts]
            found.append(max(refined, key=lambda pair: pair[0])[1])
        return np.stack(found)

    return register


def differences(
    first: np.ndarray, second: np.ndarray, known: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns errors in degrees and pixels."""
    last = np.broadcast_to([[[0.0, 0.0, 1.0]]], (len(first), 1, 3))
    first, second = (np.concatenate([x, last], 1) for x in (first, second))
    rest = np.linalg.inv(first) @ known @ second
    degrees = np.rad2deg(np.abs(np.arctan2(rest[:, 1, 0], rest[:, 0, 0])))
    side = np.linspace(size / 4, 3 * size / 4, 9)
    x, y = (part.ravel() for part in np.meshgrid(side, side))
    places = np.stack([x, y, np.ones_like(x)])
    moves = (rest @ places - places)[:, :2]
    return degrees, np.sqrt(np.square(moves).sum(axis=1).mean(axis=-1))


def measure_errors(
    normal: np.ndarray, test: np.ndarray, seed: int
) -> list[dict[str, Any]]:
    """Registers test images as they are and moved; returns rows."""
    layer = ImageRegistration()
    layer.fit(normal)
    moved, known = move(test, seed)
    # The image that the layer moves least is the one it took for reference.
    transforms = registered(layer, normal[:64])["transforms"]
    still = np.abs(transforms - np.eye(3)[:2]).max(axis=(1, 2)).argmin()
    rows = []
    for name, register in {
        "ImageRegistration": lambda x: registered(layer, x)["transforms"],
        "OpenCV": opencv(normal[still]),
    }.items():
        start = time.perf_counter()
        degrees, pixels = differences(
            register(test), register(moved), known, test.shape[1]
        )
        seconds = time.perf_counter() - start
        values = {
            "degrees": np.median(degrees),
            "degrees_95": np.quantile(degrees, 0.95),
            "pixels": np.median(pixels),
            "pixels_95": np.quantile(pixels, 0.95),
            "flips": np.count_nonzero(degrees > 90),
            "ms": 1000 * seconds / (2 * len(test)),
        }
        row = {"what": "errors", "images": len(test), "method": name}
        rows.append({**row, "seed": seed, **values})
    return rows


# === Detection ===


def score(
    make: type, normal: np.ndarray, test: np.ndarray, seed: int
) -> np.ndarray:
    """Fits a host; returns the scores of test images."""
    model = make(input_shape=normal.shape[1:], seed=seed)
    model.compile(jit_compile=False)
    model.fit(normal, verbose=0)
    model.calibrate()
    outputs = model.predict(test, batch_size=16, verbose=0)
    return outputs["anomaly_score"]


def resample_images(labels: np.ndarray) -> np.ndarray:
    """Returns indices of 2,000 bootstrap samples, drawn within each class."""
    rng = np.random.default_rng(0)
    parts = [np.flatnonzero(labels == label) for label in (0, 1)]
    return np.concatenate(
        [rng.choice(part, (2000, len(part))) for part in parts], axis=1
    )


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    return float(image_metrics(labels, scores)["image_auroc"])


def format_detection(
    scores: dict[tuple[str, str, bool], list[np.ndarray]], labels: np.ndarray
) -> str:
    """Formats the table of AUROC, in percent."""
    rows = []
    draws = resample_images(labels)
    for images, host in dict.fromkeys(key[:2] for key in scores):
        pair = [
            scores.get((images, host, is_on), []) for is_on in (False, True)
        ]
        count = min(map(len, pair))
        if not count:
            continue
        values = [
            np.array([auroc(labels, part) for part in parts[:count]])
            for parts in pair
        ]
        gains = [
            np.mean(
                [
                    auroc(labels[draw], after[draw])
                    - auroc(labels[draw], before[draw])
                    for before, after in zip(*pair, strict=False)
                ]
            )
            for draw in draws
        ]
        low, high = 100 * np.quantile(gains, [0.025, 0.975])
        cells = [percent(summarize(part), count) for part in values]
        gain = 100 * (values[1] - values[0]).mean()
        cells.append(f"{gain:+.1f} [{low:+.1f}, {high:+.1f}]")
        rows.append([images, host, *cells])
    header = ["images", "host", "as they lie", "aligned", "difference"]
    return markdown(header, rows)


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--normal", type=int, help="number of normal images. Default: all"
    )
    parser.add_argument("--hosts", nargs="+", choices=HOSTS, default=[*HOSTS])
    arguments = parser.parse_args()

    folder = scan_image_folder(arguments.data)
    step = max(1, len(folder.train) // (arguments.normal or len(folder.train)))
    normal, test = (
        correct_gain(load(samples, arguments.size)).astype("float32")
        for samples in (folder.train[::step], folder.test)
    )
    labels = np.array([sample.label for sample in folder.test])
    rows: list[dict[str, Any]] = []
    scores: dict[tuple[str, str, bool], list[np.ndarray]] = {}

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        print(row, flush=True)
        write_rows(arguments.output, rows)

    for seed in range(arguments.seeds):
        for row in measure_errors(normal, test[::2], seed):
            add(row)
        moved = move(normal, 1000 + seed)[0], move(test, seed)[0]
        for name, (train, tested) in {
            "as they are": (normal, test),
            "moved": moved,
        }.items():
            layer = ImageRegistration()
            gain = layer.fit(train)
            aligned = [registered(layer, x)["images"] for x in (train, tested)]
            for host in arguments.hosts:
                for is_aligned in (False, True):
                    pair = aligned if is_aligned else (train, tested)
                    found = score(HOSTS[host], *pair, seed)
                    scores.setdefault((name, host, is_aligned), []).append(
                        found
                    )
                    add(
                        {
                            "what": "detection",
                            "images": name,
                            "method": host,
                            "seed": seed,
                            "aligned": is_aligned,
                            "image_auroc": auroc(labels, found),
                            "correlation_before": gain.before,
                            "correlation_after": gain.after,
                        }
                    )
        print(format_detection(scores, labels), flush=True)


if __name__ == "__main__":
    main()
