"""Scores of new images and videos by a trained model."""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from keras_sspcab.data import (
    ImageSample,
    check_images,
    image_dataset,
    scan_image_folder,
)
from keras_sspcab.data.checking import warn_of_dark_files
from keras_sspcab.data.file_system import (
    is_folder,
    scheme_of,
    standardize_path,
)
from keras_sspcab.data.image_files import load_photo
from keras_sspcab.data.scanning import is_image
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
from keras_sspcab.report import overlay
from keras_sspcab.report.predictions import annotate_frame, save_score_plot
from keras_sspcab.runs import files
from keras_sspcab.runs.config import Config, EvaluationConfig
from keras_sspcab.runs.progress import Progress
from keras_sspcab.runs.regions import RegionLevels
from keras_sspcab.runs.sources import config_for, source_of
from keras_sspcab.runs.sources.base import INFERENCE_BATCH_SIZE
from keras_sspcab.scoring import Calibration, describe_fault

PathLike = str | os.PathLike[str]
Rows = list[dict[str, Any]]


def predict_images(
    model: Any,
    paths: Iterable[PathLike],
    heat_maps: PathLike | None = None,
    on_error: str = "raise",
    progress: Progress | None = None,
) -> Rows:
    """Scores image files and folders of them; see `Run.predict`."""
    preprocessing = model.preprocessing
    samples = check_images(
        _list_images(paths), on_error=on_error, preprocessing=preprocessing
    )
    warn_of_dark_files([sample.path for sample in samples], preprocessing)
    height, width, channels = model.input_shape[1:]
    if height is None or width is None:
        raise ValueError(
            "The model takes images of any size, so it does not say which one "
            "they shall have. Use a model that `keras-sspcab train` has "
            "written, or predict from Python"
        )
    if heat_maps is not None:
        os.makedirs(heat_maps, exist_ok=True)
    rows: Rows = []
    batches = image_dataset(
        samples,
        (height, width),
        channels,
        batch_size=INFERENCE_BATCH_SIZE,
        preprocessing=preprocessing,
    )
    progress = progress or Progress()
    for images in progress.track(batches, "Scoring batches of images"):
        outputs = model.predict_on_batch(images)
        for i in range(len(images)):
            path = samples[len(rows)].path
            one = {name: np.asarray(v[i]) for name, v in outputs.items()}
            row = {"path": path, **score_cells(one, model.calibration)}
            if heat_maps is not None:
                row["heat_map"] = None
            if heat_maps is not None and row["error"] is None:
                stem = os.path.splitext(os.path.basename(path))[0]
                row["heat_map"] = os.path.join(
                    heat_maps, f"{len(rows):06d}-{stem}.png"
                )
                _write_heat_map(
                    row["heat_map"],
                    np.asarray(load_photo(path, preprocessing)),
                    one["anomaly_map"],
                    model.calibration,
                )
            rows.append(row)
    return rows


def _list_images(paths: Iterable[PathLike]) -> list[ImageSample]:
    samples: dict[str, ImageSample] = {}
    for path in [standardize_path(path, "images") for path in paths]:
        if not (scheme_of(path) and is_image(path)) and is_folder(path):
            listed = scan_image_folder(path, layout="plain").train
        else:
            # A file that does not exist is reported with the broken ones.
            listed = (ImageSample(path),)
        samples |= {sample.path: sample for sample in listed}
    return list(samples.values())


def _write_heat_map(
    path: str,
    pixels: np.ndarray,
    anomaly_map: np.ndarray,
    calibration: Calibration,
) -> None:
    """Writes a PNG of an image, in its own size, with its map on top.

    The colors do not depend on the image: the scale ends at twice the
    threshold of pixels, so that normal images stay as they are. Without a
    threshold it ends at the map's maximum.
    """
    threshold = calibration.pixel_threshold or 0.0
    scale = 2 * threshold if threshold > 0 else float(np.max(anomaly_map))
    picture = overlay(pixels, anomaly_map, max(scale, 1e-6))
    with files.replacing(path) as temporary:
        Image.fromarray(picture).save(temporary)


def score_cells(
    outputs: Mapping[str, np.ndarray], calibration: Calibration
) -> dict[str, Any]:
    """Returns the scores in outputs for one image as plain values.

    Where one is not finite there are none, but an `error`. `conflict` says if
    score and pixels disagree.
    """
    names = ("anomaly_score", "is_anomalous", "raw_score")
    error, conflict = describe_fault(outputs), None
    if error is None and "boxes" not in outputs:
        conflict = calibration.describe_conflict(
            outputs["anomaly_score"], outputs["anomaly_map"]
        )
    return {
        **{n: None if error else np.asarray(outputs[n]).item() for n in names},
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
        stretches = []
        for is_anomalous, group in itertools.groupby(
            self.rows, lambda row: row["is_anomalous"]
        ):
            if is_anomalous:
                seconds = [row["seconds"] for row in group]
                stretches.append((seconds[0], seconds[-1]))
        return stretches


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
    names = [video.name for video in videos]
    if len(set(names)) < len(names):
        raise ValueError(
            "The results are named after the videos, which must differ. "
            f"Received: {', '.join(sorted(names))}"
        )
    options = {} if stride is None else {"stride": stride}
    source: Any = source_of(config or config_for(model))
    source.preprocessing = model.preprocessing
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
        os.path.join(folder, f"{video.name}{end}")
        for end in ("-annotated.mp4", "-timeline.png", "-scores.csv")
    )
    num_frames, threshold = count_frames(video), model.calibration.threshold
    annotate = _Annotator(model)
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


class _Annotator:
    """Draws frames with their maps, boxes and scores so far."""

    def __init__(self, model: Any) -> None:
        self._calibration = model.calibration
        self._limit = model.calibration.pixel_threshold or 0.0
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
            boxes = self._boxes(outputs, pixels.shape[:2])
            if self._limit > 0:
                anomaly_map = outputs["anomaly_map"]
        self._scores.append(score)
        return annotate_frame(
            pixels,
            # No more than a strip can show.
            self._scores[-pixels.shape[1] - _STRIP :],
            self._calibration.threshold,
            anomaly_map,
            2 * self._limit or 1.0,
            boxes.tolist(),
            title,
            is_alarm,
        )

    def _boxes(
        self, outputs: dict[str, np.ndarray], size: tuple[int, int]
    ) -> np.ndarray:
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
