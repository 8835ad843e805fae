"""Models of all kinds as folders that the embedded server takes."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from keras_sspcab.hosts import AnomalyModel

# Inputs that the export is compared with the model on.
_NUM_CHECKED = 4


@contextlib.contextmanager
def servable_folder(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a folder to serve: the path itself, or an export of it.

    Run folders and `.keras` files are exported to a folder that is removed at
    the end.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise ValueError(f"There is no model at {os.fspath(path)!r}.")
    is_run = (path / "model.keras").is_file()
    if path.suffix != ".keras" and not is_run:
        yield path
        return
    from keras_sspcab.export.saved_model import export_saved_model
    from keras_sspcab.runs import load_detector

    detector = load_detector(os.fspath(path))
    inputs, size = _random_inputs(detector, path if is_run else None)
    with tempfile.TemporaryDirectory(prefix="keras-sspcab-") as folder:
        target = pathlib.Path(folder, detector.name)
        export_saved_model(detector, target, images=inputs, image_size=size)
        yield target


def _random_inputs(
    detector: "AnomalyModel", run: pathlib.Path | None
) -> tuple[dict[str, Any], tuple[int, int] | None]:
    """Returns inputs to compare on, and the image size of open models.

    They are noise, because data need not be at hand to serve a model.
    """
    noise = np.random.default_rng(0)
    inputs, size = {}, None
    for tensor in detector.inputs:
        shape = tuple(tensor.shape[1:])
        if None in shape:
            if run is None:
                raise ValueError(
                    f"{detector.name} takes images of any size, and a .keras "
                    "file does not say which. Serve its run folder, or export "
                    "it with `keras-sspcab export` and serve that."
                )
            from keras_sspcab.runs import RunFolder

            height, width = RunFolder(os.fspath(run)).config.data.image_size
            size = height, width
            shape = (*shape[:-3], *size, shape[-1])
        inputs[tensor.name] = noise.random((_NUM_CHECKED, *shape), "float32")
    return inputs, size
