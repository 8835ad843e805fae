"""The block keeps its lead over the convolution that it replaces."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "benchmarks" / "results" / "layer_one_thread.csv"
# Of another processor the ratios are others.
PROCESSOR = "AMD EPYC"
TRIES = 3


def has_processor():
    information = Path("/proc/cpuinfo")
    return information.exists() and PROCESSOR in information.read_text()


def ratios(path):
    """Forward pass and training step, block over convolution."""
    with path.open() as file:
        return {
            row["what"]: float(row["block"]) / float(row["conv3x3"])
            for row in csv.DictReader(file)
        }


@pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="measured on TensorFlow"
)
@pytest.mark.skipif(
    not has_processor(), reason=f"the ratios were recorded on {PROCESSOR}"
)
def test_block_is_not_slower_than_recorded(tmp_path):
    """By a fifth, in the best of some tries; no time of its own counts."""
    command = [
        *(sys.executable, "-m", "benchmarks.layer", "--one-thread"),
        *("--channels", "64", "--sizes", "64", "--variants", "block"),
        *("--no-xla", "--no-memory", "--seconds", "0.5"),
        *("--output", str(tmp_path / "layer.csv")),
    ]
    bounds = {what: 1.2 * ratio for what, ratio in ratios(RECORDED).items()}
    best = dict.fromkeys(bounds, float("inf"))
    for _ in range(TRIES):
        subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            check=True,
        )
        for what, ratio in ratios(tmp_path / "layer.csv").items():
            best[what] = min(best[what], ratio)
        if all(best[what] <= bound for what, bound in bounds.items()):
            return
    pytest.fail(f"block over convolution: {best}, allowed: {bounds}")
