"""Exports the model of a run, compared with it on the data of the run."""

import os
import pathlib
from typing import Any

from keras_sspcab.checks import standardize_choice
from keras_sspcab.export.artifacts import ExportResult
from keras_sspcab.export.models import EXPORTERS, export_model, export_networks
from keras_sspcab.hosts import AnomalyModel
from keras_sspcab.imports import require_modules
from keras_sspcab.runs.folder import RunFolder
from keras_sspcab.runs.locks import folder_lock
from keras_sspcab.runs.models import load_detector
from keras_sspcab.runs.sources import Source, config_for, source_of

# What each format is written and compared with.
_PACKAGES = {
    "onnx": ("tf2onnx", "onnx", "onnxruntime"),
    "tflite": ("ai_edge_litert",),
}

# Images or clips that every artifact is compared with the model on; of objects
# twice as many, for these are small.
_NUM_COMPARED = 32
_CLIPS_IN_BATCH = 8
_OBJECTS_IN_BATCH = 64


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
        self._compared, self._normal = find_inputs(
            self.detector, path if is_run else None, data
        )

    def export(
        self, format: str, precision: str = "float32", **options: Any
    ) -> ExportResult:
        """Exports the model; see `export_run`."""
        format = standardize_choice(format, tuple(EXPORTERS), "format")
        name = self.detector.name
        if format != "savedmodel":
            suffix = "" if precision == "float32" else f"-{precision}"
            name = f"{name}{suffix}.{format}"
        path = self._folder / format / name
        options = {**self._options(precision), **options}
        with folder_lock(self._folder / format):
            return export_model(self.detector, path, format, **options)

    def export_networks(
        self, format: str, precision: str
    ) -> dict[str, ExportResult]:
        """Exports each network of a host of objects; see `export_networks`."""
        path = self._folder / f"{format}-networks"
        options = self._options(precision)
        with folder_lock(path):
            return export_networks(self.detector, path, format, **options)

    def _options(self, precision: str) -> dict[str, Any]:
        options: dict[str, Any] = {"images": self._compared}
        if precision != "float32":
            options["precision"] = precision
        if precision == "int8":
            options["representative_data"] = self._normal
        return options


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
        format: `"savedmodel"`, `"tflite"` or `"onnx"`.
        destination: Folder in which one for the format is made. Defaults to
            `export` beside the model.
        data: Folder of normal images or videos to compare on. Defaults to those
            of the run; a `.keras` file needs it.
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
        require_modules(
            _PACKAGES.get(format, ()),
            f"Export to {format} needs {{}}",
            "export",
        )


def find_inputs(
    detector: AnomalyModel, run: Any = None, data: Any = None
) -> tuple[Any, Any]:
    """Returns batches to compare on, and normal ones to measure ranges on.

    They come from the folder `data` or, without it, from the run.
    """
    if run is None and data is None:
        raise ValueError(
            "Each artifact is compared with the model on real images, and a "
            ".keras file names none. Give a folder with --images"
        )
    folder = None if run is None else RunFolder(os.fspath(run))
    config = config_for(detector) if folder is None else folder.config
    source = source_of(config, folder)
    source.preprocessing = detector.preprocessing
    if data is not None:
        samples = source.list_samples(os.fspath(data), "plain")
        on_error = "raise"
    else:
        samples = source.split() if source.noun == "images" else source.scan()
        on_error = "skip"
    if detector.kind == "image":
        return _find_images(source, samples, on_error)
    find = _find_clips if detector.kind == "video" else _find_objects
    compared = samples.test or samples.train
    return find(source, compared, True), find(source, samples.train, False)


def _find_images(
    source: Source, samples: Any, on_error: str
) -> tuple[Any, Any]:
    candidates = samples.test or samples.validation or samples.train
    # Spread over all kinds of defects.
    step = max(1, len(candidates) // _NUM_COMPARED)
    chosen = candidates[::step][:_NUM_COMPARED]
    compared = source.check_samples(chosen, on_error)
    return source.scoring_dataset(compared), source.scoring_dataset(
        samples.train
    )


def _find_clips(source: Source, videos: Any, is_few: bool) -> Any:
    from keras_sspcab.data.video import clip_dataset, count_clips

    videos = source.check_samples(videos, "skip")
    data, step = source.data, 1
    if is_few:
        count = count_clips(videos, data.clip_length, data.stride)
        step = max(1, count // _NUM_COMPARED)
    clips = clip_dataset(
        videos,
        data.clip_length,
        data.image_size,
        data.channels,
        stride=data.stride,
        step=step,
        batch_size=_CLIPS_IN_BATCH,
    )
    return clips.take(_NUM_COMPARED // _CLIPS_IN_BATCH) if is_few else clips


def _find_objects(source: Any, videos: Any, is_few: bool) -> Any:
    from keras_sspcab.data.objects import cube_dataset

    objects = cube_dataset(
        source.cut_out(source.check_samples(videos, "skip")),
        source.host.cube_inputs,
        batch_size=_OBJECTS_IN_BATCH,
        shuffle=True,
    )
    # Read at once: the files of a model without a run are temporary.
    return list(objects.take(1 if is_few else 2).as_numpy_iterator())
