"""Boxes that a detector has found elsewhere, as files."""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.objects.box_tables import BoxTable, read_table
from keras_sspcab.data.objects.boxes import BoxFilter, standardize_boxes
from keras_sspcab.data.objects.proposals import ObjectProposals, named_fields
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.per_frame import (
    find_files,
    load_array,
    require_one_a_frame,
)
from keras_sspcab.data.video.reading import count_frames

# Of how files are understood, for the names of files of objects.
_VERSION = 2


@dataclasses.dataclass(eq=False)
class BoxFiles(ObjectProposals):
    """Reads the boxes of objects from files.

    `path` is a folder with a file or folder for each video, or one file for all
    videos. For a video called `NAME` the folder holds one of

    - `NAME.txt`: lines `frame, x_min, y_min, x_max, y_max[, confidence]`
      without a header, as detections are published; empty if there are none;
    - `NAME.csv`: the same columns by name in the first line, where `score`
      stands for `confidence` if there is none;
    - `NAME.npy`: an array of rows as in `NAME.txt`;
    - `NAME/`: a file `.npy` for each frame, in the order of their names, with
      rows `x_min, y_min, x_max, y_max[, confidence]`;
    - `NAME.json`: as COCO, see below.

    A file for all videos is a `.csv` that has a column `video` as well, or a
    `.json` as COCO: `images`, with `id`, the `video` (or the folder in
    `file_name`) and the `frame_id` (or the position of the file in the video),
    and `annotations` with `image_id`, `bbox` (x, y, width, height) and `score`.
    A list of results has `video` and `frame`, or `file_name`, in each result.

    Boxes are in pixels of the frames, with both ends inclusive; those of COCO
    become so. A missing confidence is 1. Errors name the file and the line or
    entry.

    Args:
        path: The folder or file.
        first_frame: Number of a video's first frame in the files. Defaults to
            0.
        min_confidence: Boxes of this confidence or less are left out.
            Defaults to 0, which keeps all.
        min_area: Boxes of fewer pixels are left out. Defaults to 0.
        cover_threshold: Share of a box's area above which it is left out if a
            larger box covers it; None (the default) keeps all.

    Example:
    >>> import os, tempfile
    >>> video = Video("street", "street.mp4", num_frames=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with open(os.path.join(folder, "street.txt"), "w") as file:
    ...         _ = file.write("1, 10, 20, 29, 59, 0.8")
    ...     [boxes.tolist() for boxes in BoxFiles(folder).boxes(video)]
    [[], [[10.0, 20.0, 29.0, 59.0, 0.8]]]
    """

    path: Any
    first_frame: int = 0
    min_confidence: float = 0.0
    min_area: float = 0.0
    cover_threshold: float | None = None

    name = "files"

    def __post_init__(self) -> None:
        self.path = os.path.expanduser(os.fspath(self.path))
        if not os.path.exists(self.path):
            raise ValueError(
                "The boxes of objects do not exist. "
                f"Received: path={self.path!r}"
            )
        standardize_int(self.first_frame, "first_frame", 0)
        self._filter = BoxFilter(
            self.min_confidence, self.min_area, self.cover_threshold
        )
        # A file with all videos is parsed once: its identity and content.
        self._parsed: tuple[Any, BoxTable] | None = None
        extension = os.path.splitext(self.path)[1].lower()
        if not os.path.isdir(self.path) and extension not in (".csv", ".json"):
            if extension == ".npy":
                # Tells what to do with pickled arrays, which are common.
                load_array(self.path, "boxes")
            raise ValueError(
                "Boxes of all videos must be in one .csv or .json file, or in "
                "a folder with a file for each video. Received: "
                f"path={self.path!r}"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments; the files count by themselves."""
        return {"version": _VERSION, **named_fields(self, without=("path",))}

    def files(self, video: Video) -> list[str]:
        """Lists the files with the boxes of a video, or raises ValueError."""
        return self._find(video)[0]

    def _find(self, video: Video) -> tuple[list[str], bool]:
        """Returns the files, and whether they are not one for each frame."""
        if not os.path.isdir(self.path):
            return [self.path], True
        extensions = (".txt", ".csv", ".json", ".npy")
        return find_files(self.path, video, "boxes", extensions, (".npy",))

    def boxes(self, video: Video) -> Iterator[np.ndarray]:
        """Yields the boxes of each frame."""
        files, is_single = self._find(video)
        if is_single:
            is_own, count = os.path.isdir(self.path), count_frames(video)
            table = self._read(files[0])
            boxes = table.by_frame(video, self.first_frame, count, is_own)
            yield from map(self._filter, boxes)
            return
        folder = os.path.dirname(files[0])
        require_one_a_frame(len(files), video, "array of boxes", folder)
        for path in files:
            array = load_array(path, "boxes")
            yield self._filter(
                standardize_boxes(array, f"The boxes in {path!r}")
            )

    def _read(self, path: str) -> BoxTable:
        """Returns the content of a file, read again if it has changed."""
        status = os.stat(path)
        identity = path, status.st_size, status.st_mtime_ns
        # Threads may replace it meanwhile.
        parsed = self._parsed
        if parsed is None or parsed[0] != identity:
            self._parsed = parsed = identity, read_table(path)
        return parsed[1]
