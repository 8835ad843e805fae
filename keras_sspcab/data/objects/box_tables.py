"""Boxes in text, CSV, NumPy and COCO files."""

import csv
import dataclasses
import json
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.objects.boxes import (
    BOX_COLUMNS,
    BOX_FAULTS,
    with_confidence,
)
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.frames import list_frames
from keras_sspcab.data.video.per_frame import load_array

_COLUMNS = ("frame", *BOX_COLUMNS)

# Frame (its number in the file, or the name of its file), box with or without
# confidence, and where in the file it stands. The box is empty where a file
# lists a frame.
_Row = tuple[float | str, list[float], str]


@dataclasses.dataclass
class BoxTable:
    """The boxes in a file, by video; its name is empty if they are of one."""

    path: str
    has_videos: bool = True
    rows: dict[str, list[_Row]] = dataclasses.field(default_factory=dict)

    def add(
        self, video: str, frame: float | str, box: list[float], place: str
    ) -> None:
        """Adds a box."""
        self.rows.setdefault(video, []).append((frame, box, place))

    def by_frame(
        self, video: Video, first_frame: int, num_frames: int, is_own: bool
    ) -> Iterator[np.ndarray]:
        """Yields the boxes `(n, 5)` in each frame of a video.

        Files count frames from `first_frame` on. `is_own` says whether the file
        is that of this video alone.
        """
        rows = self._rows_of(video, is_own)
        is_named = any(isinstance(frame, str) for frame, _, _ in rows)
        names: dict[str, int] = {}
        if is_named and video.kind == "frames":
            files = map(os.path.basename, list_frames(video.path))
            names = {file: i for i, file in enumerate(files, first_frame)}
        widths = (len(box) for _, box, _ in rows if box)
        width = max(widths, default=len(BOX_COLUMNS))
        values = np.array(
            [
                [self._number(frame, names, place), *(box or [0.0] * width)]
                for frame, box, place in rows
            ],
            "float64",
        ).reshape(len(rows), 1 + width)
        frames = values[:, 0] - first_frame
        last = first_frame + num_frames - 1
        faults = {
            "numbers that are not finite": ~np.isfinite(values).all(axis=1),
            "a frame that is no whole number": frames != np.trunc(frames),
            f"a frame that is not among those from {first_frame} to {last}": (
                (frames < 0) | (frames >= num_frames)
            ),
        }
        boxes = values[:, 1:]
        has_box = np.array([bool(box) for _, box, _ in rows], bool)
        for what, find in BOX_FAULTS.items():
            faults[what] = has_box & find(boxes)
        for what, is_faulty in faults.items():
            if is_faulty.any():
                row = int(np.argmax(is_faulty))
                _, box, place = rows[row]
                numbers = values[row, : 1 + len(box)]
                given = ", ".join(f"{number:.10g}" for number in numbers)
                rule = "Each box must be of a frame of its video."
                if what in BOX_FAULTS:
                    rule = f"Boxes must be pixels {', '.join(BOX_COLUMNS)}."
                raise self.error(rule, f"{what} ({given})", place)
        frames, values = frames[has_box], values[has_box]
        order = np.argsort(frames, kind="stable")
        boxes = with_confidence(values[order, 1:])
        ends = np.searchsorted(
            frames[order], np.arange(num_frames - 1), side="right"
        )
        yield from np.split(boxes, ends)

    def _rows_of(self, video: Video, is_own: bool) -> list[_Row]:
        name = video.name if self.has_videos else ""
        others = sorted(other for other in self.rows if other != name)
        given = enumerate_names(others) or "none"
        if is_own and others:
            raise ValueError(
                f"The file {self.path!r} is for the video {video.name!r} "
                f"alone. Received: boxes of {given}"
            )
        if not is_own and not self.has_videos:
            raise ValueError(
                "A table of several videos must have a column `video`. "
                f"Received: {self.path!r} without it"
            )
        if not is_own and name not in self.rows:
            raise ValueError(
                f"There are no boxes of the video {name!r}. Received: "
                f"{self.path!r} with the videos {given}"
            )
        return self.rows.get(name, [])

    def _number(
        self, frame: float | str, names: dict[str, int], place: str
    ) -> float:
        """Returns the number of a frame, as files count them."""
        if not isinstance(frame, str):
            return frame
        if frame in names:
            return names[frame]
        digits = re.findall(r"\d+", os.path.splitext(frame)[0])
        if names or not digits:
            raise self.error(
                "Each image must tell its frame, by `frame_id` or by a "
                "`file_name` that is one of the video's.",
                f"file_name={frame!r}",
                place,
            )
        return float(digits[-1])

    def error(self, rule: str, received: str, place: str) -> ValueError:
        return ValueError(
            f"{rule} Received: {received} in {self.path!r}, {place}"
        )


def read_table(path: str) -> BoxTable:
    """Reads a file by its extension."""
    extension = os.path.splitext(path)[1].lower()
    if extension == ".json":
        return _read_coco(path)
    if extension == ".npy":
        return _read_array(path)
    return _read_lines(path, has_header=extension == ".csv")


def _read_lines(path: str, has_header: bool) -> BoxTable:
    """Reads numbers that are separated by commas."""
    try:
        # Bytes that are no text end up in the error about their line.
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            reader = csv.reader(file)
            lines = [
                (f"line {reader.line_num}", cells)
                for cells in reader
                if any(cell.strip() for cell in cells)
            ]
    except (OSError, csv.Error) as error:
        raise ValueError(f"Cannot read the boxes {path!r}: {error}") from error
    needed = _COLUMNS[:-1]
    # Without a header, all lines have a confidence or none has.
    has_confidence = bool(lines) and len(lines[0][1]) > len(needed)
    header = list(_COLUMNS if has_confidence else needed)
    if has_header:
        header = [cell.strip() for cell in lines.pop(0)[1]] if lines else []
    missing = [name for name in needed if name not in header]
    if missing:
        raise ValueError(
            "The first line must name the columns [video,] "
            f"{', '.join(needed)} and maybe confidence or score. Received: "
            f"{','.join(header)[:200]!r} in {path!r}, without "
            f"{', '.join(missing)}"
        )
    if "score" in header and "confidence" not in header:
        # As in COCO and in our own detections.
        header[header.index("score")] = "confidence"
    columns = [name for name in _COLUMNS if name in header]
    table = BoxTable(path, has_videos="video" in header)
    for place, cells in lines:
        try:
            row = dict(zip(header, cells, strict=True))
            frame, *box = (float(row[name]) for name in columns)
        except ValueError:
            raise table.error(
                f"A line must hold {len(header)} values, as the first one "
                f"does, of which {', '.join(columns)} are numbers.",
                repr(",".join(cells)[:100]),
                place,
            ) from None
        table.add(row.get("video", "").strip(), frame, box, place)
    return table


def _read_array(path: str) -> BoxTable:
    """Reads an array of rows as in text files."""
    table = BoxTable(path, has_videos=False)
    array = load_array(path, "boxes")
    if array.size and (array.ndim != 2 or array.shape[1] not in (5, 6)):
        raise ValueError(
            "The boxes of a video must be an array (n, 5 or 6) of rows "
            "frame, x_min, y_min, x_max, y_max and maybe confidence. "
            f"Received: shape {array.shape} in {path!r}. Boxes of one "
            "frame belong into a folder with the video's name, one file a "
            "frame."
        )
    rows = array.tolist() if array.size else []
    for number, (frame, *box) in enumerate(rows):
        table.add("", frame, box, f"row {number}")
    return table


# === COCO ===


def _read_coco(path: str) -> BoxTable:
    """Reads annotations with their images, or a list of results."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"Cannot read the boxes {path!r}: {error}") from error
    has_images = isinstance(content, dict)
    names = ("videos", "images", "annotations")
    parts: tuple[Any, ...] = ([], [], content)
    if has_images:
        # Data sets of videos name these in a list of their own.
        parts = tuple(map({"videos": [], **content}.get, names))
    if not all(isinstance(part, list) for part in parts):
        raise ValueError(
            "The file must hold lists `images` and `annotations`, or a list of "
            f"results. Received: {path!r} without them"
        )
    table = BoxTable(path)
    video_names: dict[Any, Any] = {}
    frames: dict[Any, tuple[str, float | str]] = {}
    for kind, entries in zip(names, parts, strict=True):
        for number, entry in enumerate(entries):
            place = f"{kind if has_images else 'results'}[{number}]"
            try:
                if kind == "videos":
                    video_names[entry["id"]] = entry["name"]
                elif kind == "images":
                    video, at = _frame_of(entry, video_names)
                    frames[entry["id"]] = video, at
                    # Numbered from 1, the last of a video would be too many.
                    table.add(video, at, [], place)
                else:
                    video, at = (
                        frames[entry["image_id"]]
                        if has_images
                        else _frame_of(entry, video_names)
                    )
                    x, y, width, height = map(float, entry["bbox"])
                    score = float(entry.get("score", 1.0))
                    box = [x, y, x + width - 1, y + height - 1, score]
                    table.add(video, at, box, place)
            except (AttributeError, KeyError, TypeError, ValueError):
                raise table.error(
                    "Each image must have an `id`, and tell its video by "
                    "`video` or the folder in `file_name`; each box must have "
                    "the `image_id` of an image, a `bbox` of x, y, width and "
                    "height, and maybe a `score`. Results without images must "
                    "tell video and frame themselves.",
                    repr(entry)[:200],
                    place,
                ) from None
    return table


def _frame_of(
    image: dict[str, Any], videos: dict[Any, Any]
) -> tuple[str, float | str]:
    """Returns the video, and the number of a frame or the name of its file."""
    file = str(image.get("file_name", "")).replace("\\", "/")
    video = image.get("video", videos.get(image.get("video_id")))
    video = os.path.basename(os.path.dirname(file)) if video is None else video
    if video == "":
        raise KeyError("video")
    frame = image.get("frame_id", image.get("frame"))
    if not isinstance(frame, (int, float)):
        frame = os.path.basename(file)
    return str(video), frame
