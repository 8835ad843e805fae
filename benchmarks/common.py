"""Options, images, sessions and files of results that benchmarks share."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_sspcab.files import write_csv


def option_parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser with a docstring as its help, and `--output`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path)
    return parser


def write_rows(path: Path | None, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows to a CSV file that has the columns of all of them.

    Nothing is written where the path is None.
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = dict.fromkeys(key for row in rows for key in row)
        write_csv(str(path), [*columns], rows)


def report_values(
    path: Path | None, rows: Sequence[tuple[str, float, str]]
) -> None:
    """Prints and writes names, values and notes."""
    for name, value, note in rows:
        print(f"{name:55} {value:10.4g}  {note}")
    names = ("what", "value", "note")
    write_rows(path, [dict(zip(names, row, strict=True)) for row in rows])


def load(samples: Any, size: int) -> np.ndarray:
    """Returns the images of samples as one array."""
    from keras_sspcab.data import image_dataset

    dataset = image_dataset(samples, image_size=(size, size), batch_size=32)
    return np.concatenate([*dataset])


def memory(field: str) -> float:
    """Returns an entry of the kernel's account of this process, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise OSError(f"The kernel does not report {field}.")


def onnx_session(model: Path | bytes, threads: int) -> Any:
    """Opens an ONNX model, given as a path or as bytes, in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"]
    )
