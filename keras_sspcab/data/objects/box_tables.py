"""Boxes in text, CSV, NumPy and COCO files."""

import csv
import dataclasses
import os
import re
from collections.abc import Iterator

import numpy as np

from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.objects.boxes import BOX_COLUMNS, with_confidence
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.frames import list_frames
from keras_sspcab.data.video.per_frame import load_array

_COLUMNS = ("frame", *BOX_COLUMNS)


@dataclasses.dataclass
class BoxTable:
    """The boxes in a file, by video.

    Attributes:
        path: The file.
        has_videos: Whether the file names videos; if not, their name is empty.
        rows: By video: frame (its number in the file, or the name of its file),
            box with or without confidence, and where in the file it stands.
    """

    path: str
    has_videos: bool = True
    rows: dict[str, list[tuple[float | str, list[float], str]]] = (
        dataclasses.field(default_factory=dict)
    )

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
            paths = list_frames(video.path)
            names = {
                os.path.basename(path): position
                for position, path in enumerate(paths, first_frame)
            }
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
                raise self.error(
                    "Each box must be of a frame of its video.",
                    f"{what} ({given})",
                    rows[row][2],
                )
        order = np.argsort(frames, kind="stable")
        boxes = with_confidence(values[order, 1:])
        ends = np.searchsorted(
            frames[order], np.arange(num_frames - 1), side="right"
        )
        yield from np.split(boxes, ends)

    def _rows_of(
        self, video: Video, is_own: bool
    ) -> list[tuple[float | str, list[float], str]]:
        name = video.name if self.has_videos else ""
        others = [other for other in self.rows if other != name]
        if is_own and others:
            raise ValueError(
                f"The file {self.path!r} is for the video {video.name!r} "
                f"alone. Received: boxes of {enumerate_names(others)}"
            )
        if not is_own and not self.has_videos:
            raise ValueError(
                "A table of several videos must have a column `video`. "
                f"Received: {self.path!r} without it"
            )
        if not is_own and name not in self.rows:
            raise ValueError(
                f"There are no boxes of the video {name!r}. Received: "
                f"{self.path!r} with the videos "
                f"{enumerate_names(sorted(others)) or 'none'}"
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


def read_text(path: str) -> BoxTable:
    """Reads lines of numbers, separated by commas, without a header."""
    table = BoxTable(path, has_videos=False)
    length = None
    for number, line in enumerate(_read_lines(path), 1):
        text = line.strip()
        if not text:
            continue
        try:
            frame, *box = map(float, text.split(","))
        except ValueError:
            box = []
        length = length or len(box)
        if len(box) not in (4, 5) or len(box) != length:
            raise table.error(
                "A line must hold the numbers frame, x_min, y_min, x_max, "
                "y_max and, in all lines or none, confidence, separated by "
                "commas.",
                repr(text[:100]),
                f"line {number}",
            )
        table.add("", frame, box, f"line {number}")
    return table


def read_csv(path: str) -> BoxTable:
    """Reads a table with a header, of one video or of several."""
    table = BoxTable(path)
    reader = csv.reader(_read_lines(path))
    header = [cell.strip() for cell in next(reader, [])]
    needed = _COLUMNS[:-1]
    missing = [name for name in needed if name not in header]
    if missing:
        raise ValueError(
            "The first line must name the columns [video,] "
            f"{', '.join(needed)} and maybe confidence. Received: "
            f"{','.join(header)[:200]!r} in {path!r}, without "
            f"{', '.join(missing)}"
        )
    columns = [name for name in _COLUMNS if name in header]
    table.has_videos = "video" in header
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        place = f"line {reader.line_num}"
        try:
            row = dict(zip(header, cells, strict=True))
            frame, *box = (float(row[name]) for name in columns)
        except ValueError:
            raise table.error(
                f"A line must hold {len(header)} values, of which "
                f"{', '.join(columns)} are numbers.",
                repr(",".join(cells)[:100]),
                place,
            ) from None
        table.add(row.get("video", "").strip(), frame, box, place)
    return table


def read_array(path: str) -> BoxTable:
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


def _read_lines(path: str) -> list[str]:
    # Bytes that are no text end up in the error about their line.
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return file.readlines()
    except OSError as error:
        raise ValueError(
            f"Cannot read the boxes {path!r}: {error.strerror}"
        ) from error
