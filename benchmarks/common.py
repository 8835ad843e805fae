"""Options, images and files of results that benchmarks share."""

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


def load(samples: Any, size: int) -> np.ndarray:
    """Returns the images of samples as one array."""
    from keras_sspcab.data import image_dataset

    dataset = image_dataset(samples, image_size=(size, size), batch_size=32)
    return np.concatenate([*dataset])
