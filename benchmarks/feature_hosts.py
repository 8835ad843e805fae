"""Measures the latency of the hosts on pretrained features.

Run: python -m benchmarks.feature_hosts --data FOLDER
        [--output benchmarks/results/x.csv]

The folder is as those of MVTec AD. One image a call: the exported hosts take
turns with ONNX Runtime on their backbone alone (up to the deepest tap that the
host with several scales needs), and are reported as ratios of medians to it:
what scoring adds. Prints a Markdown table.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.common import load, onnx_session, option_parser, write_rows
from keras_sspcab.applications import MultiScalePaDiM, PaDiM, PatchCore
from keras_sspcab.backbones import load_backbone
from keras_sspcab.data import scan_image_folder
from keras_sspcab.export import export_model

#: All stages that the default host reads.
TAPS = ("stage3", "stage4", "stage5", "stage6")

#: Name: class and format.
CASES = {
    "MultiScalePaDiM, ONNX Runtime": (MultiScalePaDiM, "onnx"),
    "PaDiM, ONNX Runtime": (PaDiM, "onnx"),
    "PatchCore, ONNX Runtime": (PatchCore, "onnx"),
    "MultiScalePaDiM, LiteRT": (MultiScalePaDiM, "tflite"),
}
BASE = "backbone alone, ONNX Runtime"


def export_all(folder: Path, normal: np.ndarray) -> dict[str, Path]:
    """Fits and exports every case; returns the files."""
    shape = normal.shape[1:]
    image = keras.Input(shape, name="image")
    backbone = keras.Model(image, load_backbone(taps=TAPS)(image))
    paths = {BASE: folder / "backbone.onnx"}
    export_model(backbone, paths[BASE], "onnx", check=False)
    hosts: dict[type, Any] = {}
    for name, (make, to) in CASES.items():
        if make not in hosts:
            # The full covariances of PaDiM take 256 MB at this size.
            hosts[make] = make(input_shape=shape)
            hosts[make].fit(normal)
            hosts[make].calibrate()
        paths[name] = folder / f"{make.__name__}.{to}"
        export_model(hosts[make], paths[name], to, check=False)
    return paths


def make_runner(path: Path, threads: int) -> Callable[[np.ndarray], Any]:
    """Loads a file to run on some threads."""
    if path.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path), num_threads=threads)
        runner = interpreter.get_signature_runner("serving_default")
        # The interpreter is kept along with its runner.
        return lambda x, kept=interpreter: runner(image=x)
    session = onnx_session(path, threads)
    return lambda x: session.run(None, {"image": x})


def measure_latency(
    images: np.ndarray, threads: list[int], rounds: int
) -> list[dict[str, Any]]:
    """Times all cases in turns, for each number of threads."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        # It depends on the shapes alone, not on what was fitted.
        paths = export_all(Path(folder), images[:2])
        for count in threads:
            runners = {n: make_runner(p, count) for n, p in paths.items()}
            times: dict[str, list[float]] = {name: [] for name in runners}
            for index in range(-5, rounds):
                image = images[index % len(images)][None]
                for name, run in runners.items():
                    start = time.perf_counter()
                    run(image)
                    if index >= 0:  # the first ones warm up
                        times[name].append(time.perf_counter() - start)
            medians = {n: statistics.median(t) for n, t in times.items()}
            rows += [
                {
                    "what": name,
                    "size": images.shape[1],
                    "threads": count,
                    "milliseconds": 1000 * medians[name],
                    "ratio": medians[name] / medians[BASE],
                    "megabytes": paths[name].stat().st_size / 1e6,
                }
                for name in runners
            ]
    return rows


def format_latency(rows: list[dict[str, Any]]) -> str:
    lines = ["| what | threads | ms | ratio | MB |", "|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['what']} | {row['threads']} | {row['milliseconds']:.1f} "
            f"| {row['ratio']:.2f} | {row['megabytes']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()

    samples = scan_image_folder(arguments.data).train[:40]
    images = load(samples, arguments.size)
    rows = measure_latency(images, arguments.threads, arguments.rounds)
    print(format_latency(rows))
    write_rows(arguments.output, rows)


if __name__ == "__main__":
    main()
