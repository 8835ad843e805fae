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
from keras_sspcab.data.objects.boxes import BOX_COLUMNS, with_confidence
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.frames import list_frames
from keras_sspcab.data.video.per_frame import load_array

_COLUMNS = ("frame", *BOX_COLUMNS)

# Frame (its number in the file, or the name of its file), box with or without
# confidence, and where in the file it stands.
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
        values = np.array(
            [
                [self._number(frame, names, place), *box]
                for frame, box, place in rows
            ],
            "float64",
        ).reshape(len(rows), -1 if rows else len(_COLUMNS))
        frames = values[:, 0] - first_frame
        last = first_frame + num_frames - 1
        faults = {
            "numbers that are not finite": ~np.isfinite(values).all(axis=1),
            "a frame that is no whole number": frames != np.trunc(frames),
            f"a frame that is not among those from {first_frame} to {last}": (
                (frames < 0) | (frames >= num_frames)
            ),
        }
        for what, is_faulty in faults.items():
            if is_faulty.any():
                row = int(np.argmax(is_faulty))
                given = ", ".join(f"{value:.10g}" for value in values[row])
                rule = "Each box must be of a frame of its video."
                raise self.error(rule, f"{what} ({given})", rows[row][2])
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


def read_table(path: str, images: str | None = None) -> BoxTable:
    """Reads a file by its extension; COCO results may need that of `images`."""
    extension = os.path.splitext(path)[1].lower()
    if extension == ".json":
        return _read_coco(path, images)
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
            f"{', '.join(needed)} and maybe confidence. Received: "
            f"{','.join(header)[:200]!r} in {path!r}, without "
            f"{', '.join(missing)}"
        )
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


def _read_coco(path: str, images_path: str | None) -> BoxTable:
    """Reads annotations with their images, or a list of results."""
    table = BoxTable(path)
    content = _load_json(path)
    kind = "annotations" if isinstance(content, dict) else "results"
    entries = content.get(kind) if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise ValueError(
            "The file must hold `images` and `annotations`, or a list of "
            f"results. Received: {path!r} without them"
        )
    images: dict[Any, dict[str, Any]] = {}
    if kind == "annotations":
        images = _images_of(content, path)
    elif images_path is not None:
        images = _images_of(_load_json(images_path), images_path)
    for key, image in images.items():
        table.rows.setdefault(_video_of(image, table, f"image {key!r}"), [])
    for number, entry in enumerate(entries):
        place = f"{kind}[{number}]"
        box = _box_of(entry, table, place)
        key = entry.get("image_id")
        if isinstance(key, (int, str)) and key in images:
            image = images[key]
        elif kind == "results" and {"video", "file_name"} & set(entry):
            image = entry
        else:
            raise table.error(
                "Each box must belong to an image. Results without `images` "
                "need the file that has them: BoxFiles(path, images=...).",
                f"image_id={key!r}, not among the {len(images)} images,",
                place,
            )
        frame = image.get("frame_id", image.get("frame"))
        if not isinstance(frame, (int, float)):
            frame = os.path.basename(_file_name(image))
        table.add(_video_of(image, table, place), frame, box, place)
    return table


def _video_of(image: dict[str, Any], table: BoxTable, place: str) -> str:
    if image.get("video") is not None:
        return str(image["video"])
    folder = os.path.basename(os.path.dirname(_file_name(image)))
    if not folder:
        raise table.error(
            "Each image must tell its video, by `video` or by the folder in "
            "`file_name`.",
            f"file_name={_file_name(image)!r}",
            place,
        )
    return folder


def _box_of(entry: Any, table: BoxTable, place: str) -> list[float]:
    try:
        x, y, width, height = map(float, entry["bbox"])
        confidence = float(entry.get("score", 1.0))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise table.error(
            "Each entry must have a `bbox` of x, y, width and height, and "
            "maybe a `score`.",
            repr(entry)[:200],
            place,
        ) from None
    return [x, y, x + width - 1, y + height - 1, confidence]


def _images_of(content: Any, path: str) -> dict[Any, dict[str, Any]]:
    """Returns the images of a COCO file by `id`, with the `video` of each."""
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise ValueError(
            f"The file must hold a list `images`. Received: {path!r} without it"
        )
    # Data sets of videos name these in a list of their own.
    videos = {
        video.get("id"): video.get("name")
        for video in content.get("videos", [])
        if isinstance(video, dict)
    }
    for number, image in enumerate(images):
        if not isinstance(image, dict) or "id" not in image:
            raise ValueError(
                "Each image must have an `id`. "
                f"Received: {image!r} in {path!r}, images[{number}]"
            )
    return {
        image["id"]: {"video": videos.get(image.get("video_id")), **image}
        for image in images
    }


def _file_name(image: dict[str, Any]) -> str:
    return str(image.get("file_name", "")).replace("\\", "/")


def _load_json(path: str) -> Any:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"Cannot read the boxes {path!r}: {error}") from error
