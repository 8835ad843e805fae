"""Scores of new images and videos by a trained model."""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_sspcab import files
from keras_sspcab.checks import standardize_choice
from keras_sspcab.data import (
    ImageSample,
    check_images,
    image_dataset,
)
from keras_sspcab.data.batching import images_at_once
from keras_sspcab.data.checking import warn_of_dark_files
from keras_sspcab.data.file_system import require_utf8, standardize_path
from keras_sspcab.data.image_files import load_photo
from keras_sspcab.data.scanning import find_images
from keras_sspcab.data.video import (
    Video,
    count_frames,
    frame_rate,
    iterate_timed_frames,
    make_video,
    read_frames,
    video_writer,
)
from keras_sspcab.hosts import ScoredFrame
from keras_sspcab.locks import folder_lock
from keras_sspcab.optional_inputs import product_index, product_name
from keras_sspcab.pictures.heat import (
    HeatScale,
    outline_regions,
    overlay,
    seen_part,
)
from keras_sspcab.pictures.video import annotate_frame, save_score_plot
from keras_sspcab.progress import Progress
from keras_sspcab.runs.config import Config, EvaluationConfig
from keras_sspcab.runs.outputs import intervals
from keras_sspcab.runs.regions import RegionLevels
from keras_sspcab.runs.sources import config_for, source_of
from keras_sspcab.scoring import Calibration, describe_fault, region_columns

PathLike = str | os.PathLike[str]
Rows = list[dict[str, Any]]


# What models look at, by kind, and options of predictions without a meaning
# for them.
_OF_IMAGES = ("heat_maps", "on_error", "product")
_MEANINGLESS = {
    "image": ("images", ("results", "stride")),
    "video": ("videos", _OF_IMAGES),
    "objects": ("objects in videos", (*_OF_IMAGES, "stride")),
}


def check_options(model: Any, **given: Any) -> None:
    """Raises a ValueError for options that count for other kinds alone.

    `given` are the options by name; None and `on_error="raise"` are defaults.
    """
    thing, meaningless = _MEANINGLESS[model.kind]
    for name in meaningless:
        value = given.get(name)
        if value is not None and (name, value) != ("on_error", "raise"):
            raise ValueError(
                f"The model {model.name!r} looks at {thing}, for which the "
                f"`{name}` argument has no meaning. Received: {name}={value}. "
                "Leave it out"
            )


def predict_images(
    model: Any,
    paths: Iterable[PathLike],
    heat_maps: PathLike | None = None,
    on_error: str = "raise",
    progress: Progress | None = None,
    product: str | None = None,
) -> Rows:
    """Scores image files and folders of them; see `Run.predict`."""
    options: dict[str, Any] = {}
    if product is not None:
        names = [part.name for part in model.calibration.products]
        options["product"] = product_index(names, product)
    on_error = standardize_choice(on_error, ("raise", "skip"), "on_error")
    preprocessing = model.preprocessing
    paths = list(paths)
    if heat_maps is not None:
        _require_beside(heat_maps, paths)
    samples: Sequence[ImageSample] = _list_images(paths)
    warn_of_dark_files([sample.path for sample in samples], preprocessing)
    if None in model.input_shape[1:3]:
        raise ValueError(
            "The model takes images of any size, so it does not say which one "
            "they shall have. Use a model that `keras-sspcab train` has "
            "written, or predict from Python"
        )
    progress = progress or Progress()
    try:
        return _score_images(model, samples, heat_maps, progress, options)
    except tf.errors.OpError:
        # Only now, so that good files are read once.
        good = check_images(samples, on_error, preprocessing)
        if len(good) == len(samples):
            raise
    return _score_images(model, good, heat_maps, progress, options)


def _score_images(
    model: Any,
    samples: Sequence[ImageSample],
    heat_maps: PathLike | None,
    progress: Progress,
    options: dict[str, Any],
) -> Rows:
    *size, channels = model.input_shape[1:]
    batches = image_dataset(
        samples,
        size,
        channels,
        batch_size=images_at_once(size),
        preprocessing=model.preprocessing,
    )
    rows: Rows = []
    with contextlib.ExitStack() as stack:
        folder = ""
        if heat_maps is not None:
            folder = stack.enter_context(_adding_files(heat_maps))
        for images in progress.track(batches, "Scoring batches of images"):
            outputs = {
                name: np.asarray(value)
                for name, value in model.predict_on_batch(
                    images, **options
                ).items()
            }
            regions = model.counted_pixels(images) if folder else None
            for i in range(len(images)):
                path = samples[len(rows)].path
                one = {name: value[i] for name, value in outputs.items()}
                row = {"path": path, **score_cells(one, model.calibration)}
                if heat_maps is not None:
                    row["heat_map"] = None
                if heat_maps is not None and row["error"] is None:
                    stem = os.path.splitext(os.path.basename(path))[0]
                    name = f"{len(rows):06d}-{files.shorten(stem)}.png"
                    row["heat_map"] = os.path.join(heat_maps, name)
                    where = None if regions is None else regions[i]
                    target = os.path.join(folder, name)
                    _write_heat_map(target, path, model, one, where)
                rows.append(row)
    return rows


@contextlib.contextmanager
def _adding_files(folder: PathLike) -> Iterator[str]:
    """Yields a folder whose files move into another one on success."""
    # Which removes what a killed one has left.
    with folder_lock(folder, is_deep=False):
        temporary = files.temporary_path(os.path.join(folder, "maps"))
        os.mkdir(temporary)
        try:
            yield temporary
            for name in os.listdir(temporary):
                os.replace(
                    os.path.join(temporary, name), os.path.join(folder, name)
                )
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _require_beside(heat_maps: PathLike, paths: Iterable[PathLike]) -> None:
    """Raises a ValueError if heat maps would be images the next time."""
    target = Path(heat_maps).expanduser().resolve()
    for path in paths:
        folder = Path(path).expanduser().resolve()
        if folder.is_dir() and target.is_relative_to(folder):
            raise ValueError(
                "The `heat_maps` argument must be a folder outside of those "
                "whose images are scored: they would be scored as well the "
                f"next time. Received: heat_maps={os.fspath(heat_maps)!r} in "
                f"{os.fspath(path)!r}"
            )


def _list_images(paths: Iterable[PathLike]) -> list[ImageSample]:
    """Lists the given files and those in the given folders, each once."""
    listed: dict[str, None] = {}
    for path in [standardize_path(path, "images") for path in paths]:
        # A file that does not exist is reported with the broken ones.
        listed |= dict.fromkeys(find_images(path) or [path])
    require_utf8(listed)
    return list(map(ImageSample, listed))


def _write_heat_map(
    target: str,
    path: str,
    model: Any,
    outputs: Mapping[str, np.ndarray],
    regions: np.ndarray | None,
) -> None:
    """Writes a PNG of an image, in its own size, with its map on top.

    Colors are those of `HeatScale`, so that normal images stay as they are.
    Regions of interest are outlined.
    """
    preprocessing = model.preprocessing
    photo = np.asarray(load_photo(path, preprocessing))
    size = photo.shape[:2]
    anomaly_map = preprocessing.restore(outputs["anomaly_map"], size)
    calibration = model.calibration.of_product(outputs.get("product_index"))
    scale = HeatScale.of(calibration.pixel_threshold, [anomaly_map])
    picture = overlay(photo, anomaly_map, scale.limit)
    seen = seen_part(preprocessing, model.input_shape[1:3], size, regions)
    if seen is not None:
        picture = outline_regions(picture, seen)
    with files.replacing(target) as temporary:
        Image.fromarray(picture).save(temporary)


def score_cells(
    outputs: Mapping[str, np.ndarray], calibration: Calibration
) -> dict[str, Any]:
    """Returns the scores in outputs for one image as plain values.

    Where one is not finite there are none, but an `error`. `conflict` says if
    score and pixels disagree. Regions with thresholds have columns by name, and
    of several products there is the `product`.
    """
    scores = ("anomaly_score", "is_anomalous", "raw_score")
    error, conflict = describe_fault(outputs), None
    of_product = {}
    if calibration.products:
        names = [part.name for part in calibration.products]
        index = int(outputs["product_index"])
        of_product["product"] = product_name(names, index)
        calibration = calibration.of_product(index)
    if error is None and "boxes" not in outputs:
        conflict = calibration.describe_conflict(
            outputs["anomaly_score"], outputs["anomaly_map"]
        )
    of_regions = region_columns(part.name for part in calibration.regions)
    return {
        **{n: None if error else np.asarray(outputs[n]).item() for n in scores},
        **{
            column: None if error else np.asarray(outputs[n])[place].item()
            for column, (n, place) in of_regions.items()
        },
        **of_product,
        "error": error,
        "conflict": conflict,
    }


# Of the table of a video.
_COLUMNS = (
    *("frame", "seconds", "anomaly_score", "is_anomalous", "raw_score"),
    *("error", "conflict"),
)

# How many frames the plot shows as pictures, and how far they are apart, as a
# share of the video.
_PICTURES = 4
_APART = 0.05

# Frames of scores that the strip below a video can show, besides its width.
_STRIP = 320


@dataclasses.dataclass(frozen=True)
class VideoPrediction:
    """The scores of a video, and the files that were written."""

    name: str
    #: See `Run.predict`; `seconds` are when a frame is shown.
    rows: Rows
    num_frames: int
    paths: tuple[str, ...]

    def alarms(self) -> list[tuple[float, float]]:
        """Returns begin and end of anomalous stretches, in seconds."""
        return intervals((r["seconds"], r["is_anomalous"]) for r in self.rows)


def predict_videos(
    model: Any,
    paths: Iterable[PathLike],
    results: PathLike | None = None,
    stride: int | None = None,
    config: Config | None = None,
    progress: Progress | None = None,
) -> list[VideoPrediction]:
    """Scores videos; writes an annotated video, a plot and a table of each.

    The stride is by default that of `config`, the configuration of the model's
    run, if it has one. See `Run.predict` for the rest.
    """
    videos = [make_video(path) for path in paths]
    names = [files.shorten(video.name) for video in videos]
    if len(set(names)) < len(names):
        raise ValueError(
            "The results are named after the videos, which must differ. "
            f"Received: {', '.join(sorted(names))}"
        )
    options = {} if stride is None else {"stride": stride}
    source: Any = source_of(config or config_for(model), model=model)
    progress = progress or Progress()
    return [
        _predict_video(
            model,
            video,
            source.score_frames(model, [video], **options),
            f"{video.name}-scores" if results is None else os.fspath(results),
            progress,
        )
        for video in source.as_read(videos)
    ]


def _predict_video(
    model: Any,
    video: Video,
    scored: Iterator[ScoredFrame],
    folder: str,
    progress: Progress,
) -> VideoPrediction:
    os.makedirs(folder, exist_ok=True)
    annotated, plot, table = (
        os.path.join(folder, f"{files.shorten(video.name)}{end}")
        for end in ("-annotated.mp4", "-timeline.png", "-scores.csv")
    )
    num_frames, threshold = count_frames(video), model.calibration.threshold
    annotate = Annotator(model.calibration)
    rows: Rows = []
    following = next(scored, None)
    with (
        progress.count(f"Scoring {video.name}", num_frames) as advance,
        video_writer(annotated, frame_rate(video)) as write,
    ):
        timed = iterate_timed_frames(video)
        for frame, (seconds, pixels) in enumerate(timed):
            outputs: dict[str, np.ndarray] | None = None
            if following is not None and following.frame == frame:
                outputs, following = following.outputs, next(scored, None)
                cells = score_cells(outputs, model.calibration)
                if cells["error"] is None:
                    cells["is_anomalous"] = int(cells["is_anomalous"])
                rows.append(
                    {
                        "video": video.name,
                        "frame": frame,
                        "seconds": round(seconds, 3),
                        **cells,
                    }
                )
            title = f"frame {frame}  {seconds:.1f} s"
            write(annotate(title, pixels, outputs), seconds)
            advance()
    files.write_csv(
        table,
        _COLUMNS,
        ({name: row[name] for name in _COLUMNS} for row in rows),
    )
    save_score_plot(
        plot,
        [row["frame"] for row in rows],
        # No number where there is an error.
        np.array([row["anomaly_score"] for row in rows], "float64"),
        threshold,
        pictures=read_frames(video, _peaks(rows)),
        seconds=[row["seconds"] for row in rows],
        title=video.name,
    )
    return VideoPrediction(
        video.name, rows, num_frames, (annotated, plot, table)
    )


class Annotator:
    """Draws frames with their maps, boxes and scores so far."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self._limit = calibration.pixel_threshold or 0.0
        self._scale = HeatScale.of(self._limit, ())
        # Boxes around what is anomalous, as `evaluate` cuts regions.
        self._levels = RegionLevels(
            (self._limit,), None, "the pixel threshold", EvaluationConfig()
        )
        self._scores: list[float] = []

    def __call__(
        self,
        title: str,
        pixels: np.ndarray,
        outputs: dict[str, np.ndarray] | None,
    ) -> np.ndarray:
        score, anomaly_map, boxes = float("nan"), None, np.empty((0, 4))
        is_alarm = False
        if outputs is not None and describe_fault(outputs) is None:
            score = float(outputs["anomaly_score"])
            is_alarm = bool(outputs["is_anomalous"])
            boxes = self.boxes(outputs, pixels.shape[:2])
            if self._limit > 0:
                anomaly_map = outputs["anomaly_map"]
        self._scores.append(score)
        return annotate_frame(
            pixels,
            # No more than a strip can show.
            self._scores[-pixels.shape[1] - _STRIP :],
            self._calibration.threshold,
            anomaly_map,
            self._scale.limit,
            boxes.tolist(),
            title,
            is_alarm,
        )

    def boxes(
        self, outputs: dict[str, np.ndarray], size: tuple[int, int]
    ) -> np.ndarray:
        """Returns the boxes around what is anomalous in a frame of a size."""
        threshold = self._calibration.threshold
        if "boxes" in outputs:
            limit = np.inf if threshold is None else threshold
            return outputs["boxes"][~(outputs["object_scores"] < limit)]
        if self._limit > 0 and outputs["is_anomalous"]:
            return self._levels.cut(outputs["anomaly_map"], size)[0]
        return np.empty((0, 4))


def _peaks(rows: Rows) -> list[int]:
    """Returns the frames with the largest scores that are not neighbors."""
    apart = max(1.0, _APART * len(rows))
    chosen: list[int] = []
    good = [row for row in rows if row["error"] is None]
    for row in sorted(good, key=lambda r: r["anomaly_score"], reverse=True):
        if all(abs(row["frame"] - other) >= apart for other in chosen):
            chosen.append(row["frame"])
        if len(chosen) == _PICTURES:
            break
    return sorted(chosen)
