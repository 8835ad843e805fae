"""Scores a video: an annotated video, a plot and a table."""

import dataclasses
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from keras_sspcab.runs import Config, EvaluationConfig, files

if TYPE_CHECKING:
    from keras_sspcab.applications import ScoredFrame
    from keras_sspcab.data.video import Video

COLUMNS = ("frame", "seconds", "anomaly_score", "is_anomalous", "raw_score")

# How many frames the plot shows as pictures, and how far they are apart, as a
# share of the video.
_PICTURES = 4
_APART = 0.05


@dataclasses.dataclass(frozen=True)
class VideoResult:
    """What was found in a video.

    Attributes:
        rows: One dict a scored frame; see `COLUMNS`.
        num_frames: How many frames the video has.
        paths: The files that were written.
    """

    rows: list[dict[str, Any]]
    num_frames: int
    paths: tuple[str, ...]

    def alarms(self) -> list[tuple[float, float]]:
        """Returns begin and end of anomalous stretches, in seconds."""
        from keras_sspcab.report.content import intervals

        return intervals((r["seconds"], r["is_anomalous"]) for r in self.rows)


def predict_video(
    model: Any,
    video: "Video",
    folder: str,
    stride: int = 1,
    config: Config | None = None,
) -> VideoResult:
    """Scores a video and writes three files: video, plot and table.

    Args:
        model: A host that looks at videos, or at objects of videos.
        video: The video, of any length; it is read in constant memory.
        folder: Where the files are written, made if it is missing.
        stride: Steps from one frame of a clip to the next.
        config: The configuration of the model's run, which says how objects
            are found; None takes the defaults.

    Raises:
        ValueError: If the video cannot be read or is too short.
    """
    from keras_sspcab.cli._progress import frame_progress
    from keras_sspcab.data.video import (
        count_frames,
        frame_rate,
        read_frames,
        video_writer,
    )
    from keras_sspcab.report.score_plot import save_score_plot

    os.makedirs(folder, exist_ok=True)
    rate = frame_rate(video)
    annotated, plot, table = (
        os.path.join(folder, f"{video.name}{end}")
        for end in ("-annotated.mp4", "-timeline.png", "-scores.csv")
    )
    rows: list[dict[str, Any]] = []
    num_frames = count_frames(video)
    scored = _scored(model, video, stride, config)
    with (
        frame_progress(f"Scoring {video.name}", num_frames) as advance,
        video_writer(annotated, rate) as write,
    ):
        for picture, row in _annotated(model, video, float(rate), scored):
            write(picture)
            advance()
            if row is not None:
                rows.append(row)
    files.write_csv(table, COLUMNS, rows)
    chosen = read_frames(video, _peaks(rows))
    save_score_plot(
        plot,
        [row["frame"] for row in rows],
        [row["anomaly_score"] for row in rows],
        model.calibration.threshold,
        pictures=chosen,
        rate=float(rate),
        title=video.name,
    )
    return VideoResult(rows, num_frames, (annotated, plot, table))


def _scored(
    model: Any, video: "Video", stride: int, config: Config | None
) -> "Iterator[ScoredFrame]":
    from keras_sspcab.applications import score_frames, score_objects
    from keras_sspcab.cli._object_data import ObjectSource, config_of

    if model.kind != "objects":
        yield from score_frames(model, [video], stride=stride)
        return
    source = ObjectSource()
    yield from score_objects(
        model, source.cut_out([video], config_of(model, config))
    )


def _annotated(
    model: Any, video: "Video", rate: float, scored: "Iterator[ScoredFrame]"
) -> Iterator[tuple[Any, dict[str, Any] | None]]:
    """Yields each frame as it is shown, and its row if it has a score."""
    from keras_sspcab.data.video import iterate_frames
    from keras_sspcab.report.annotation import annotate_frame

    calibration = model.calibration
    limit = calibration.pixel_threshold or 0.0
    following = next(scored, None)
    scores: list[float] = []
    for frame, pixels in enumerate(iterate_frames(video)):
        row, anomaly_map, boxes = None, None, []
        if following is not None and following.frame == frame:
            outputs, following = following.outputs, next(scored, None)
            anomaly_map = outputs["anomaly_map"]
            row = {
                "frame": frame,
                "seconds": round(frame / rate, 3),
                "anomaly_score": float(outputs["anomaly_score"]),
                "is_anomalous": int(outputs["is_anomalous"]),
                "raw_score": float(outputs["raw_score"]),
            }
            if "boxes" in outputs:
                threshold = calibration.threshold
                if threshold is not None:
                    found = outputs["object_scores"] >= threshold
                    boxes = outputs["boxes"][found].tolist()
            elif limit > 0 and row["is_anomalous"]:
                boxes = _boxes(anomaly_map, limit, pixels.shape[:2])
        scores.append(float("nan") if row is None else row["anomaly_score"])
        picture = annotate_frame(
            pixels,
            # No more than a strip can show.
            scores[-pixels.shape[1] - 320 :],
            calibration.threshold,
            anomaly_map if limit > 0 else None,
            2 * limit or 1.0,
            boxes,
            f"frame {frame}  {frame / rate:.1f} s",
        )
        yield picture, row


def _boxes(
    anomaly_map: Any, threshold: float, size: tuple[int, int]
) -> list[list[float]]:
    """Returns boxes around what is anomalous, as `evaluate` cuts regions."""
    from keras_sspcab.cli._regions import RegionLevels, cut_regions

    levels = RegionLevels((threshold,), 0.0, "the pixel threshold")
    table = cut_regions("", [anomaly_map], levels, EvaluationConfig(), size)
    columns = [table[name] for name in ("x_min", "y_min", "x_max", "y_max")]
    return [list(box) for box in zip(*columns, strict=True)]


def _peaks(rows: list[dict[str, Any]]) -> list[int]:
    """Returns the frames with the largest scores that are not neighbors."""
    apart = max(1.0, _APART * len(rows))
    chosen: list[int] = []
    for row in sorted(rows, key=lambda r: r["anomaly_score"], reverse=True):
        if all(abs(row["frame"] - other) >= apart for other in chosen):
            chosen.append(row["frame"])
        if len(chosen) == _PICTURES:
            break
    return sorted(chosen)
