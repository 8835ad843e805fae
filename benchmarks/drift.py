"""Measures how soon drift is told, and how often for nothing.

Run: python -m benchmarks.drift FOLDER ...
        [--output benchmarks/results/drift.csv]

Simulates false alarms and delays of `DriftMonitor` on normally distributed
statistics. Then, for each folder laid out as MVTec AD's: every other normal
image trains the default detector, and the others pass it in random order, drawn
again and again, first in even light, then while the lamp gets darker. One row
is written for ten images: the light, how far brightness has moved, what was
told, and how many were flagged.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import load, option_parser, write_rows
from keras_sspcab.applications import MultiScalePaDiM
from keras_sspcab.data import scan_image_folder
from keras_sspcab.scoring import (
    DriftMonitor,
    DriftReference,
    input_statistics,
)

# Images in even light, and those while the lamp gets darker.
_STEADY, _DARKENING = 1000, 1000
_DARKEST = 0.6
_STEP = 10

_NUM_MONITORS, _NUM_IMAGES = 400, 10_000


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.set_defaults(output=Path("benchmarks/results/drift.csv"))
    arguments = parser.parse_args()
    print("| normal images | false alarms in 10,000 | 1 std | 2 std | 3 std |")
    print("|---|---|---|---|---|")
    for count in (300, 100, 50, 20, 10):
        cells = [f"{100 * np.isfinite(first_alarms(count)).mean():.1f} %"]
        for shift in (1, 2, 3):
            found = first_alarms(count, shift, 2000)
            cells.append(f"{np.median(found):.0f}")
        print(f"| {count} | {' | '.join(cells)} |", flush=True)
    rows = [row for folder in arguments.folders for row in darken(folder)]
    if rows:
        write_rows(arguments.output, rows)


def first_alarms(
    num_normal: int, shift: float = 0.0, num_images: int = _NUM_IMAGES
) -> np.ndarray:
    """Simulates one statistic; returns when each monitor tells of it first."""
    rng = np.random.default_rng(0)
    found = np.full(_NUM_MONITORS, np.inf)
    for i in range(_NUM_MONITORS):
        normal = {"brightness": rng.normal(size=num_normal)}
        reference = DriftReference.measure(normal)
        assert reference is not None
        monitor = DriftMonitor(reference)
        for number, value in enumerate(rng.normal(shift, 1, num_images), 1):
            if monitor.update({"brightness": value}):
                found[i] = number
                break
    return found


def darken(folder: Path) -> list[dict[str, Any]]:
    """Passes the images of a folder by a detector, in less and less light."""
    normal = scan_image_folder(folder).train
    model = MultiScalePaDiM((320, 320, 3))
    size = model.input_shape[1]
    model.fit(load(normal[::2], size))
    reference = model.calibrate().reference
    assert reference is not None
    monitor = DriftMonitor(reference)
    images = load(normal[1::2], size)
    rng = np.random.default_rng(0)
    lights = np.r_[np.ones(_STEADY), np.linspace(1, _DARKEST, _DARKENING)]
    rows, first = [], None
    for start in range(0, len(lights), _STEP):
        chosen = images[rng.integers(len(images), size=_STEP)]
        light = lights[start : start + _STEP].astype("float32")
        batch = chosen * light[:, None, None, None]
        outputs = model.predict_on_batch(batch)
        statistics = input_statistics(batch)
        statistics["score"] = np.asarray(outputs["anomaly_score"])
        drifts = monitor.update(statistics)
        if drifts and first is None:
            first = light[-1]
            print(
                f"{folder.name}: at light {first:.3f}: {drifts[0].describe()}"
            )
        rows.append(
            {
                "data": folder.name,
                "images": start + _STEP,
                "light": round(float(light[-1]), 4),
                "brightness_shift": round(monitor.shifts["brightness"], 3),
                "told": " ".join(drift.statistic for drift in drifts),
                "flagged": int(np.sum(outputs["is_anomalous"])),
            }
        )
    return rows


if __name__ == "__main__":
    main()
