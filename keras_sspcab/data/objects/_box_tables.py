"""Boxes in text files: rows of frame, box and confidence."""

import csv
from collections.abc import Sequence

import numpy as np

from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.objects.boxes import BOX_COLUMNS, with_confidence
from keras_sspcab.data.video.folder import Video

#: Positions of frames `(n,)` and boxes `(n, 5)`.
Rows = tuple[np.ndarray, np.ndarray]

_COLUMNS = ("frame", *BOX_COLUMNS)


def standardize_rows(
    values: np.ndarray,
    path: str,
    places: Sequence[str],
    first_frame: int,
    num_frames: int | None,
) -> Rows:
    """Splits rows `(n, 5 or 6)`, and raises a ValueError if one is faulty.

    Args:
        values: Rows of frame, box and maybe confidence, float64.
        path: Their file, for the error.
        places: Where in the file each row is, for the error.
        first_frame: Number of the first frame.
        num_frames: Frames of the video; None if that is not known.
    """
    frames = values[:, 0] - first_frame
    boxes = with_confidence(values[:, 1:])
    end = np.inf if num_frames is None else num_frames
    faults = (
        (~np.isfinite(values).all(axis=1), "numbers that are not finite"),
        (frames != np.trunc(frames), "a frame that is no whole number"),
        (
            (frames < 0) | (frames >= end),
            "a frame that is not among those from "
            f"{first_frame} to {first_frame + end - 1}",
        ),
    )
    for is_faulty, what in faults:
        if is_faulty.any():
            row = int(np.argmax(is_faulty))
            given = ", ".join(f"{value:.10g}" for value in values[row])
            raise ValueError(
                "Each box must be of a frame of its video. Received: "
                f"{what} ({given}) in {path!r}, {places[row]}"
            )
    return frames.astype("int64"), boxes


def text_boxes(path: str, first_frame: int, num_frames: int) -> Rows:
    """Reads lines of numbers, separated by commas, without a header."""
    rows: list[list[float]] = []
    places: list[str] = []
    for number, line in enumerate(_read_lines(path), 1):
        text = line.strip()
        if not text:
            continue
        try:
            row = [float(cell) for cell in text.split(",")]
        except ValueError:
            row = []
        if len(row) not in (5, 6) or len(row) != len(rows[0] if rows else row):
            raise ValueError(
                "A line must hold the numbers frame, x_min, y_min, x_max, "
                "y_max and, in all lines or none, confidence, separated by "
                f"commas. Received: {text[:100]!r} in {path!r}, line {number}"
            )
        rows.append(row)
        places.append(f"line {number}")
    values = np.array(rows, "float64").reshape(len(rows), -1 if rows else 6)
    return standardize_rows(values, path, places, first_frame, num_frames)


class CsvFile:
    """A table with a header, of one video or, with its column, of several.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
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
        where = [header.index(name) for name in columns]
        video_column = header.index("video") if "video" in header else None
        self._rows: dict[str | None, list[list[float]]] = {}
        self._lines: dict[str | None, list[str]] = {}
        self.has_videos = video_column is not None
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            try:
                if len(cells) != len(header):
                    raise ValueError
                row = [float(cells[column]) for column in where]
            except ValueError:
                raise ValueError(
                    f"A line must hold {len(header)} values, of which "
                    f"{', '.join(columns)} are numbers. Received: "
                    f"{','.join(cells)[:100]!r} in {path!r}, line "
                    f"{reader.line_num}"
                ) from None
            video = None
            if video_column is not None:
                video = cells[video_column].strip()
            self._rows.setdefault(video, []).append(row)
            self._lines.setdefault(video, []).append(f"line {reader.line_num}")

    def rows(
        self, video: Video, first_frame: int, num_frames: int, is_single: bool
    ) -> Rows:
        """Returns the rows of a video.

        Args:
            video: The video.
            first_frame: Number of the first frame.
            num_frames: Frames of the video.
            is_single: Whether the file is that of this video alone.
        """
        name = video.name if self.has_videos else None
        if name is None and not is_single:
            raise ValueError(
                "A table of several videos must have a column `video`. "
                f"Received: {self.path!r} without it"
            )
        if name not in self._rows and not is_single:
            require_known(name, list(self._rows), self.path)
        strange = [other for other in self._rows if other != name]
        if is_single and strange:
            raise ValueError(
                f"The file {self.path!r} is for the video {video.name!r} "
                f"alone. Received: {strange[0]!r} in column `video`, "
                f"{self._lines[strange[0]][0]}"
            )
        rows = self._rows.get(name, [])
        values = np.array(rows, "float64").reshape(len(rows), -1 if rows else 6)
        places = self._lines.get(name, [])
        return standardize_rows(
            values, self.path, places, first_frame, num_frames
        )


def require_known(name: str | None, known: Sequence[object], path: str) -> None:
    """Raises a ValueError unless a file has boxes of a video."""
    if name not in known:
        names = sorted(str(other) for other in known)
        raise ValueError(
            f"There are no boxes of the video {name!r}. Received: {path!r} "
            f"with the videos {enumerate_names(names) or 'none'}"
        )


def _read_lines(path: str) -> list[str]:
    # Bytes that are no text end up in the error about their line.
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return file.readlines()
    except OSError as error:
        raise ValueError(
            f"Cannot read the boxes {path!r}: {error.strerror}"
        ) from error
