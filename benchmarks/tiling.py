"""Large images in tiles: time, memory and seams.

    python -m benchmarks.tiling [--output FILE.csv]

Compared are one call of the model with the sum of calls for its tiles, in
turns; the peak of memory of images of different sizes, each in a process of its
own; and the map of an image with that of the same image, shifted, also within a
single tile. Weights are those of ImageNet if they are installed.
"""

import multiprocessing
import resource
import time
from typing import Any

import keras
import numpy as np
from skimage import data

from benchmarks.common import option_parser, report_values
from keras_sspcab.applications import PatchCore
from keras_sspcab.hosts import InspectionModel
from keras_sspcab.hosts.tiling import TILES_AT_ONCE

NUM_NORMAL = 12
OVERLAP = 0.25


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(832, 1024))
    parser.add_argument("--largest", type=int, nargs=2, default=(3000, 4000))
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    size, side = tuple(arguments.size), arguments.side
    largest = tuple(arguments.largest)
    rows = [
        *measure_time(size, side, arguments.rounds),
        *measure_time(largest, side, max(1, arguments.rounds // 2)),
        *measure_memory([size, largest], side),
        *measure_shifts(side),
    ]
    report_values(arguments.output, rows)


def surface(size: tuple[int, int], seed: int) -> np.ndarray:
    """Returns a part of a brushed or rough surface that never repeats."""
    rng = np.random.default_rng(seed)
    gravel = data.gravel() / 255.0
    height, width = size
    # Mirrored and turned pieces, so that no two places are the same.
    pieces = [
        np.rot90(gravel, rng.integers(4))[:: rng.choice([-1, 1])]
        for _ in range((height // 512 + 2) * (width // 512 + 2))
    ]
    columns = width // 512 + 2
    lines = [
        np.concatenate(pieces[i : i + columns], axis=1)
        for i in range(0, len(pieces), columns)
    ]
    whole = np.concatenate(lines)
    y, x = rng.integers(0, 512, 2)
    part = whole[y : y + height, x : x + width]
    return np.repeat(part[..., None], 3, axis=-1).astype("float32")


def make_model(size: tuple[int, int], side: int) -> InspectionModel:
    keras.utils.set_random_seed(0)
    host = PatchCore((side, side, 3), memory_size=2000)
    host.fit(np.stack([surface((side, side), n) for n in range(NUM_NORMAL)]))
    return InspectionModel(host, size, OVERLAP)


def measure_time(size: tuple[int, int], side: int, rounds: int) -> list[Any]:
    model = make_model(size, side)
    image = surface(size, 100)[None]
    tiles = model.cut(image)
    raw = model.get_layer("tiles")._raw.value

    def whole() -> None:
        model.predict_on_batch(image)

    def apart() -> None:
        for start in range(0, len(tiles), TILES_AT_ONCE):
            raw.predict_on_batch(tiles[start : start + TILES_AT_ONCE])

    times: dict[str, list[float]] = {"whole": [], "apart": []}
    for number in range(rounds + 1):
        for name, function in (("whole", whole), ("apart", apart)):
            begin = time.perf_counter()
            function()
            if number:  # the first traces
                times[name].append(time.perf_counter() - begin)
    ratios = np.array(times["whole"]) / np.array(times["apart"])
    note = f"{len(tiles)} tiles, {rounds} rounds in turns, median"
    return [
        (
            f"time against the sum of its tiles, {size[0]} x {size[1]}",
            float(np.median(ratios)),
            f"{note}; {ratios.min():.3f} to {ratios.max():.3f}",
        ),
        ("seconds an image", float(np.median(times["whole"])), note),
    ]


def measure_memory(sizes: list[tuple[int, int]], side: int) -> list[Any]:
    rows = []
    for size in sizes:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            grown, seconds = pool.apply(_grow, (size, side))
        megabytes = size[0] * size[1] * 3 * 4 / 1e6
        rows.append(
            (
                f"peak of memory beyond the model, {size[0]} x {size[1]}, MB",
                grown,
                f"the image has {megabytes:.0f} MB, {seconds:.1f} s",
            )
        )
    return rows


def _grow(size: tuple[int, int], side: int) -> tuple[float, float]:
    # Without fitting it, which takes more.
    host = PatchCore((side, side, 3), memory_size=2000)
    InspectionModel(host).predict_on_batch(surface((side, side), 0)[None])
    model, image = (
        InspectionModel(host, size, OVERLAP),
        surface(size, 100)[None],
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    model.predict_on_batch(image)
    seconds = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (after - before) / 1024, seconds


def measure_shifts(side: int) -> list[Any]:
    """How far the map of a shifted image is from the shifted map."""
    step = round(side * (1 - OVERLAP))
    size = (side + 3 * step, side + 3 * step)
    tiled = make_model(size, side)
    single = InspectionModel(tiled.host)
    normal = [surface(size, 200 + n)[None] for n in range(6)]
    spread = np.std([tiled.raw_outputs(x)["raw_map"] for x in normal])
    rows = []
    for name, model, shift in (
        ("in one tile, without seams", single, side // 5),
        ("in tiles", tiled, side // 5),
        ("in tiles, by the step of the tiles", tiled, step),
    ):
        height, width = model.input_shape[1:3]
        errors = []
        for seed in range(300, 306):
            # A strip more, of which two images are cut.
            wide = surface((height, width + shift), seed)[None]
            first, second = (
                model.raw_outputs(part)["raw_map"][0]
                for part in (wide[:, :, :width], wide[:, :, shift:])
            )
            error = np.abs(first[:, shift:] - second[:, :-shift])
            # What is at the edge of the one is inside of the other.
            edge = side // 4
            errors.append(error[edge:-edge, edge:-edge] / spread)
        for text, value in (
            ("95 % of pixels", np.quantile(errors, 0.95)),
            ("largest", np.max(errors)),
        ):
            note = f"{shift} pixels, in standard deviations of normal maps"
            rows.append((f"shift {name}, {text}", float(value), note))
    return rows


if __name__ == "__main__":
    main()
