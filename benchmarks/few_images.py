"""Measures how good detectors are that have seen few normal images.

Run: python -m benchmarks.few_images FOLDER[:SYMMETRIC] ...
        [--output benchmarks/results/few_images.csv]

Folders are as those of MVTec AD. Each host at its default settings is fitted to
some of the normal images, drawn at random, several times, and tested on 60 good
and 60 defective test images, evenly from all. The images of a draw are the
first of one random order, so that numbers of images are compared on the same
draws. With SYMMETRIC, such as `rotate,flip`, all but the fit to all images is
done again with these variants of the images.

To be done in an hour: features of an image and its variants are extracted once,
and kept; two folds instead of five measure the scales that MultiScalePaDiM
adds; and it keeps whole covariances, which up to 64 images are the same.

Prints a Markdown table: means over the draws, with a 95 % t interval.
"""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.common import load, option_parser, write_rows
from keras_sspcab.applications import MultiScalePaDiM, PatchCore
from keras_sspcab.compare.statistics import t_interval
from keras_sspcab.compare.tables import NOTHING, markdown
from keras_sspcab.data import scan_image_folder
from keras_sspcab.hosts import FeatureModel, feature_model
from keras_sspcab.metrics import image_metrics
from keras_sspcab.variants import ImageVariants

#: Host: its class and the size of its images.
HOSTS = {
    "MultiScalePaDiM": (MultiScalePaDiM, 320),
    "PatchCore": (PatchCore, 256),
}

# Test images that are scored after each fit.
_NUM_TEST = 120


class KeptFeatures:
    """Extracts the features of each image once, known by a checksum."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.is_kept = True
        self._names = [*model.output]
        self._kept: dict[int, tuple[np.ndarray, ...]] = {}

    def predict_on_batch(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns features by the name of the layer that is fitted to them."""
        keys = [zlib.crc32(image.tobytes()) for image in images]
        is_new = np.array([key not in self._kept for key in keys])
        found = dict(self._kept)
        if is_new.any():
            outputs = self.model.predict_on_batch(images[is_new])
            rows = zip(*(outputs[name] for name in self._names), strict=True)
            found |= zip(np.array(keys)[is_new].tolist(), rows, strict=True)
        if self.is_kept:
            self._kept = found
        columns = zip(*(found[key] for key in keys), strict=True)
        stacked = map(np.stack, columns)
        return dict(zip(self._names, stacked, strict=True))


class Head:
    """Scores images by their kept features."""

    def __init__(self, model: keras.Model, features: KeptFeatures) -> None:
        inputs = [model.inputs[0], *features.model.output.values()]
        self._model = keras.Model(inputs, model.output)
        self._features = features

    def predict_on_batch(self, images: np.ndarray) -> Any:
        """Returns the outputs of the model."""
        features = self._features.predict_on_batch(images)
        return self._model.predict_on_batch([images, *features.values()])


def keep_features(model: FeatureModel) -> KeptFeatures:
    """Makes a host extract the features of each image only once."""
    features = KeptFeatures(model._statistics.value)
    model._statistics.value = features
    for name in ("_raw", "_scales"):
        if hasattr(model, name):
            part = getattr(model, name)
            part.value = Head(part.value, features)
    return features


def choose_test(samples: Sequence[Any]) -> list[Any]:
    """Returns test samples, evenly from each kind."""
    chosen: list[Any] = []
    for label in (0, 1):
        of_label = [s for s in samples if s.label == label]
        count = min(len(of_label), _NUM_TEST // 2)
        places = np.linspace(0, len(of_label) - 1, count).round().astype(int)
        chosen += [of_label[place] for place in places]
    return chosen


def measure(
    data: Path,
    host: str,
    symmetric: Sequence[str],
    counts: Sequence[int],
    draws: int,
) -> Iterator[dict[str, Any]]:
    """Yields one row for each fit; 0 images stand for all."""
    make, size = HOSTS[host]
    folder = scan_image_folder(data)
    normal = load(folder.train, size)
    chosen = choose_test(folder.test)
    test = load(chosen, size)
    labels = np.array([sample.label for sample in chosen])
    options = {"rank": None} if make is MultiScalePaDiM else {}
    model = make((size, size, 3), **options)
    features = keep_features(model)
    for names in dict.fromkeys(((), tuple(symmetric))):
        model.variants = ImageVariants(names)
        for count in counts:
            if names and not count:
                continue  # with all images it takes long
            for draw in range(draws if count else 1):
                order = np.random.default_rng(draw).permutation(len(normal))
                images = normal[order[: count or len(normal)]]
                features.is_kept = bool(count)
                model.fit_scoring(images)
                features.is_kept = True
                scores = np.concatenate(
                    [
                        model._raw.value.predict_on_batch(part)["raw_score"]
                        for part in np.array_split(test, len(test) // 20)
                    ]
                )
                yield {
                    "data": data.name,
                    "host": host,
                    "symmetric": ",".join(names) or "none",
                    "images": len(images),
                    "draw": draw,
                    "image_auroc": image_metrics(labels, scores)["image_auroc"],
                }


def format_table(rows: list[dict[str, Any]]) -> str:
    """Returns means over the draws, in percent, as a Markdown table."""
    cells: dict[int, dict[tuple[str, ...], list[float]]] = {}
    for row in rows:
        column = (row["data"], row["host"], row["symmetric"])
        line = cells.setdefault(int(row["images"]), {})
        line.setdefault(column, []).append(100 * float(row["image_auroc"]))
    columns = dict.fromkeys(c for line in cells.values() for c in line)
    lines = [
        [str(count), *(_interval(line.get(column)) for column in columns)]
        for count, line in sorted(cells.items())
    ]
    return markdown(["images", *map(", ".join, columns)], lines)


def _interval(values: Sequence[float] | None) -> str:
    """Formats a mean, with half of its t interval if there are several."""
    if not values:
        return NOTHING
    text = f"{np.mean(values):.1f}"
    if len(values) > 1:
        low, high = t_interval(np.array(values))
        text += f" ± {(high - low) / 2:.1f}"
    return text


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("data", nargs="+", metavar="FOLDER[:SYMMETRIC]")
    parser.add_argument("--hosts", nargs="+", choices=HOSTS, default=[*HOSTS])
    parser.add_argument(
        "--counts", type=int, nargs="+", default=[1, 2, 5, 10, 20, 50, 0]
    )
    parser.add_argument("--draws", type=int, default=5)
    arguments = parser.parse_args()
    feature_model.NUM_FOLDS = 2
    rows = []
    for data in arguments.data:
        folder, _, symmetric = data.partition(":")
        names = symmetric.split(",") if symmetric else []
        for host in arguments.hosts:
            for row in measure(
                Path(folder), host, names, arguments.counts, arguments.draws
            ):
                rows.append(row)
                print(row, flush=True)
                write_rows(arguments.output, rows)
    print(format_table(rows))


if __name__ == "__main__":
    main()
