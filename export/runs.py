"""Exports models, the networks that hosts are made of, and runs."""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_sspcab.checks import standardize_choice
from keras_sspcab.data.scanning import without_masks
from keras_sspcab.export.artifacts import ExportResult
from keras_sspcab.export.images import (
    MAX_REPRESENTATIVE_IMAGES,
    collect_images,
)
from keras_sspcab.export.inference import Inference
from keras_sspcab.export.onnx import export_onnx
from keras_sspcab.export.openvino import PACKAGES, export_openvino
from keras_sspcab.export.parity import MAX_IMAGES
from keras_sspcab.export.precision import COMPUTE_PRECISIONS, FILE_PRECISIONS
from keras_sspcab.export.saved_model import export_saved_model
from keras_sspcab.export.tflite import export_tflite
from keras_sspcab.hosts import AnomalyModel, ObjectModel
from keras_sspcab.imports import require_modules
from keras_sspcab.locks import folder_lock
from keras_sspcab.runs.folder import RunFolder
from keras_sspcab.runs.models import load_detector
from keras_sspcab.runs.sources import Source, config_for, source_of
from keras_sspcab.runs.tracking import log_run


class Format(NamedTuple):
    """How an export format is written, and what it needs.

    Attributes:
        export: Its exporter.
        suffix: End of the names of its files; a SavedModel is a folder.
        precisions: Those that it has.
        packages: Those that it is written and compared with.
        extra: What brings them.
    """

    export: Callable[..., ExportResult]
    suffix: str
    precisions: Sequence[str]
    packages: Sequence[str]
    extra: str = "export"


#: All formats by name.
FORMATS = {
    "savedmodel": Format(export_saved_model, "", COMPUTE_PRECISIONS, ()),
    "tflite": Format(
        export_tflite, ".tflite", FILE_PRECISIONS, ("ai_edge_litert",)
    ),
    "onnx": Format(
        export_onnx, ".onnx", ("float32",), ("tf2onnx", "onnx", "onnxruntime")
    ),
    "openvino": Format(
        export_openvino, ".xml", FILE_PRECISIONS, PACKAGES, "openvino"
    ),
}

# Images or clips that every artifact is compared with the model on; of objects
# twice as many, for these are small.
_NUM_COMPARED = 32
_CLIPS_IN_BATCH = 8


def export_model(
    model: Any, path: Any, to: str = "savedmodel", **options: Any
) -> ExportResult:
    """Exports a model in one of the formats.

    Args:
        model: An `AnomalyModel`, or any functional or sequential Keras model.
        path: Base folder of a SavedModel, or the file to write.
        to: `"savedmodel"`, `"tflite"`, `"onnx"` or `"openvino"`.
        **options: Arguments of `export_saved_model`, `export_tflite`,
            `export_onnx` or `export_openvino`, such as `images`.

    Returns:
        The path and the comparison with the model.

    Raises:
        ValueError: If there is no such format, or as the exporter does.

    Example:
    >>> import tempfile
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.ReLU()])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = export_model(model, folder, images=np.ones((3, 2)))
    ...     result.path.name, result.parity.passes
    ('1', True)
    """
    return _find_format(to, "to").export(model, path, **options)


def _find_format(name: str, argument: str) -> Format:
    return FORMATS[standardize_choice(name, tuple(FORMATS), argument)]


def export_networks(
    model: ObjectModel,
    directory: Any,
    to: str = "savedmodel",
    *,
    images: Any,
    representative_data: Any = None,
    **options: Any,
) -> dict[str, ExportResult]:
    """Exports each network of a host that looks at objects.

    For those who put the parts together by themselves; the host as a whole,
    with scores and thresholds, is what `export_model` writes. Each artifact is
    compared with its network, on what the network is given in the host.

    Args:
        model: The host; see its property `networks`.
        directory: Where the artifacts are written: `NAME/1` as a SavedModel,
            `NAME.tflite`, `NAME.onnx` or `NAME.xml`.
        to: As of `export_model`.
        images: Real objects: inputs of the host, as a dict of arrays or an
            iterable of such batches; the first 64 count.
        representative_data: Normal objects, likewise, on which int8 measures
            its ranges.
        **options: Arguments of the exporter, such as `precision`.

    Returns:
        Path and comparison of each, by the name of the network.

    Raises:
        ValueError: If the model has no networks of its own, objects do not fit,
            or as the exporter does. Networks before the one that fails are
            there, each whole.
        ExportMismatchError: If an artifact and its network differ.

    Example:
    >>> results = export_networks(  # doctest: +SKIP
    ...     model, "networks", images=objects
    ... )
    """
    export, suffix, *_ = _find_format(to, "to")
    if not isinstance(model, ObjectModel):
        raise ValueError(
            "Single networks are exported of hosts that look at objects. "
            f"Received: {type(model).__name__}. Use `export_model`"
        )
    given = {"images": _network_inputs(model, images, MAX_IMAGES)}
    if representative_data is not None:
        given["representative_data"] = _network_inputs(
            model, representative_data, MAX_REPRESENTATIVE_IMAGES
        )
    folder = pathlib.Path(directory)
    return {
        name: export(
            network,
            folder / f"{name}{suffix}",
            **{argument: inputs[name] for argument, inputs in given.items()},
            **options,
        )
        for name, network in model.networks.items()
    }


def _network_inputs(
    model: ObjectModel, objects: Any, limit: int
) -> dict[str, dict[str, np.ndarray]]:
    """Returns what each network is given, by the names that artifacts have."""
    inference = Inference(model, allow_uncalibrated=True)
    given = model.network_inputs(collect_images(inference, objects, limit))
    inputs = {}
    for name, network in model.networks.items():
        arrays = map(np.asarray, keras.tree.flatten(given[name]))
        names = Inference(network).input_names
        inputs[name] = dict(zip(names, arrays, strict=True))
    return inputs


class RunExporter:
    """A trained model, and what its exports are compared with it on.

    `path` is that of a run folder or of a `.keras` file, which needs `data`.
    """

    def __init__(
        self, path: Any, data: Any = None, destination: Any = None
    ) -> None:
        path = pathlib.Path(path)
        self.detector = load_detector(str(path))
        is_run = path.suffix != ".keras"
        folder = (path if is_run else path.parent) / "export"
        self._folder = pathlib.Path(destination or folder)
        is_logged = is_run and destination is None
        self._run = RunFolder(str(path)) if is_logged else None
        self._compared, self._normal = find_inputs(
            self.detector, path if is_run else None, data
        )

    def export(
        self, format: str, precision: str = "float32", **options: Any
    ) -> ExportResult:
        """Exports the model; see `export_run`."""
        name = self.detector.name
        found = _find_format(format, "format")
        if found.suffix:
            name = f"{name}{_of_precision(precision)}{found.suffix}"
        path = self._folder / format / name
        options = {**self._options(found, precision), **options}
        with folder_lock(self._folder / format):
            result = export_model(self.detector, path, format, **options)
        if self._run is not None:
            log_run(self._run)
        return result

    def export_networks(
        self, format: str, precision: str
    ) -> dict[str, ExportResult]:
        """Exports each network of a host of objects; see `export_networks`."""
        name = f"{format}-networks{_of_precision(precision)}"
        path = self._folder / name
        options = self._options(_find_format(format, "format"), precision)
        with folder_lock(path):
            return export_networks(self.detector, path, format, **options)

    def _options(self, format: Format, precision: str) -> dict[str, Any]:
        standardize_choice(precision, format.precisions, "precision")
        options: dict[str, Any] = {"images": self._compared}
        if precision != "float32":
            options["precision"] = precision
        if precision == "int8":
            options["representative_data"] = self._normal()
        return options


def _of_precision(precision: str) -> str:
    """Returns what tells the precision of a file, in its name."""
    return "" if precision == "float32" else f"-{precision}"


def export_run(
    run: Any,
    format: str = "savedmodel",
    destination: Any = None,
    data: Any = None,
    **options: Any,
) -> ExportResult:
    """Exports the model of a run, compared with it on the data of the run.

    Args:
        run: Run folder, or a `.keras` file.
        format: `"savedmodel"`, `"tflite"`, `"onnx"` or `"openvino"`.
        destination: Folder in which one for the format is made. Defaults to
            `export` beside the model.
        data: Folder of normal images or videos to compare on. Defaults to those
            of the run; a `.keras` file needs it. Defective ones compare as
            well; int8 takes the normal ones, by the layout of the folder.
        **options: Other arguments of the exporter, such as `precision`; int8
            measures its ranges on the normal images or videos.

    Returns:
        The path and the comparison with the model.

    Raises:
        ValueError: If there is no trained model, or as the exporter does.
        ExportMismatchError: If artifact and model differ; nothing is written.
        ImportError: If a package is missing.

    Example:
    >>> result = export_run("runs/screws", "onnx")  # doctest: +SKIP
    >>> result.path  # doctest: +SKIP
    PosixPath('runs/screws/export/onnx/multiscale_padim.onnx')
    """
    require_packages(format)
    return RunExporter(run, data, destination).export(format, **options)


def require_packages(*formats: str) -> None:
    """Raises an ImportError unless all that the formats need is installed."""
    for format in formats:
        found = _find_format(format, "format")
        purpose = f"Export to {format} needs {{}}"
        require_modules(found.packages, purpose, found.extra)


def find_inputs(
    detector: AnomalyModel, run: Any = None, data: Any = None
) -> tuple[Any, Callable[[], Any]]:
    """Returns batches to compare on, and what finds normal ones.

    They come from the folder `data` or, without it, from the run, and are
    spread over all that is there: over kinds of defects, products and videos.
    Masks are left out.
    """
    if run is None and data is None:
        raise ValueError(
            "Each artifact is compared with the model on real images, and a "
            ".keras file names none. Give a folder with --images (the "
            "argument `data`)"
        )
    folder = None if run is None else RunFolder(os.fspath(run))
    config = config_for(detector) if folder is None else folder.config
    source = source_of(config, folder, detector)
    path = None if data is None else os.fspath(data)
    samples = _own_samples(source) if path is None else _given(source, path)
    find = {"image": _find_images, "video": _find_clips}.get(
        detector.kind, _find_objects
    )
    compared = samples.test or samples.validation or samples.train
    on_error = "raise" if data is not None else "skip"

    # Only int8 needs normal ones, and to check videos is to decode them.
    def find_normal() -> Any:
        listed = samples if path is None else _given_normal(source, path)
        return find(source, listed.train, MAX_REPRESENTATIVE_IMAGES, "skip")

    return find(source, compared, _NUM_COMPARED, on_error), find_normal


def _given(source: Source, path: str) -> Any:
    """Lists a folder: whether an image is normal or not, it compares."""
    if source.noun != "images":
        return source.list_samples(path, "auto")
    return without_masks(source.list_samples(path, "plain"))


def _given_normal(source: Source, path: str) -> Any:
    """Lists a folder by its layout: defects would spoil the ranges of int8."""
    layout = "products" if source.data.layout == "products" else "auto"
    try:
        return source.list_samples(path, layout)
    except ValueError as error:
        raise ValueError(
            f"int8 measures its ranges on normal {source.noun} alone: {error} "
            f"Or give one of normal {source.noun} alone, with --images (the "
            "argument `data`)"
        ) from error


def _own_samples(source: Source) -> Any:
    try:
        return source.split() if source.noun == "images" else source.scan()
    except (ValueError, OSError) as error:
        raise ValueError(
            f"The artifact cannot be compared on the data of the run: {error} "
            "Give another folder of normal ones, with --images (the argument "
            "`data`)"
        ) from error


def _find_images(source: Source, images: Any, count: int, on_error: str) -> Any:
    chosen = source.check_samples(_spread(images, count), on_error)
    return source.scoring_dataset(chosen)


def _find_clips(source: Any, videos: Any, count: int, on_error: str) -> Any:
    from keras_sspcab.data.video import count_clips

    videos = source.check_samples(_spread(videos, count), on_error)
    data = source.data
    clips = count_clips(videos, data.clip_length, data.stride)
    step = max(1, -(-clips // count))
    return source.clips(videos, step=step, batch_size=_CLIPS_IN_BATCH)


def _find_objects(source: Any, videos: Any, count: int, on_error: str) -> Any:
    from keras_sspcab.data.objects import cube_dataset

    videos = source.check_samples(_spread(videos, count), on_error)
    objects = cube_dataset(
        source.cut_out(videos),
        source.host.cube_inputs,
        batch_size=2 * count,
        shuffle=True,
    )
    # Read at once: the files of a model without a run are temporary.
    return list(objects.take(1).as_numpy_iterator())


def _spread(samples: Sequence[Any], count: int) -> list[Any]:
    """Returns at most so many samples, evenly from the first to the last."""
    places = np.linspace(0, len(samples) - 1, min(len(samples), count))
    return [samples[round(place)] for place in places]
