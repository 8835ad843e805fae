"""Boxes that a detector has found elsewhere, as files."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.objects._box_arrays import (
    array_boxes,
    frame_arrays_boxes,
    is_array,
    list_arrays,
)
from keras_sspcab.data.objects._box_json import CocoFile
from keras_sspcab.data.objects._box_tables import CsvFile, text_boxes
from keras_sspcab.data.objects.boxes import BoxFilter
from keras_sspcab.data.objects.proposals import ObjectProposals
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.frames import natural_key
from keras_sspcab.data.video.reading import count_frames

_EXTENSIONS = (".txt", ".csv", ".json", ".npy")


class BoxFiles(ObjectProposals):
    """Reads the boxes of objects from files.

    `path` is a folder with a file or folder for each video, or one file for all
    videos. For a video called `NAME` the folder holds one of

    - `NAME.txt`: lines `frame, x_min, y_min, x_max, y_max[, confidence]`
      without a header, as detections are published;
    - `NAME.csv`: the same columns by name in the first line;
    - `NAME.npy`: an array of rows as in `NAME.txt`;
    - `NAME/`: a file `.npy` for each frame, in the order of their names, with
      rows `x_min, y_min, x_max, y_max[, confidence]`;
    - `NAME.json`: as COCO, see below.

    A file for all videos is a `.csv` that has a column `video` as well, or a
    `.json` as COCO: `images`, with `id`, the `video` (or the folder in
    `file_name`) and the `frame_id` (or the position of the file in the video),
    and `annotations` with `image_id`, `bbox` (x, y, width, height) and `score`.
    A list of results, which has no `images`, takes them from the file `images`,
    or from the same keys in each result.

    Boxes are in pixels of the frames, with both ends inclusive; those of COCO
    become so. Frames count from 0. A missing confidence is 1.

    Args:
        path: The folder or file.
        images: For a list of COCO results: the file with `images`.
        first_frame: Number of a video's first frame in the files. Defaults to
            0.
        min_confidence: Boxes of this confidence or less are left out.
            Defaults to 0, which keeps all.
        min_area: Boxes of fewer pixels are left out. Defaults to 0.
        cover_threshold: Share of a box's area above which it is left out if a
            larger box covers it; None (the default) keeps all.

    Raises:
        ValueError: If `path` is not as described.
    """

    name = "files"

    def __init__(
        self,
        path: Any,
        images: Any = None,
        first_frame: int = 0,
        min_confidence: float = 0.0,
        min_area: float = 0.0,
        cover_threshold: float | None = None,
    ) -> None:
        self.path = os.path.expanduser(os.fspath(path))
        self.images = (
            None if images is None else os.path.expanduser(os.fspath(images))
        )
        self.first_frame = standardize_int(first_frame, "first_frame", 0)
        self.filter = BoxFilter(min_confidence, min_area, cover_threshold)
        for required in (self.path, self.images):
            if required is not None and not os.path.exists(required):
                raise ValueError(
                    "The boxes of objects are not there. Received: "
                    f"path={required!r}, which does not exist"
                )
        # Files with all videos are parsed once.
        self._parsed: dict[str, tuple[Any, CsvFile | CocoFile]] = {}
        if not os.path.isdir(self.path):
            self._require_single_file()

    def __repr__(self) -> str:
        return f"BoxFiles({self.path!r})"

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments; the files count by themselves."""
        return {
            "name": self.name,
            "first_frame": self.first_frame,
            **self.filter.settings,
        }

    def files(self, video: Video) -> list[str]:
        """Lists the files with the boxes of a video.

        Raises:
            ValueError: If there are none.
        """
        more = [] if self.images is None else [self.images]
        if not os.path.isdir(self.path):
            return [self.path, *more]
        for extension in _EXTENSIONS:
            path = os.path.join(self.path, video.name + extension)
            if os.path.isfile(path):
                return [path, *(more if extension == ".json" else [])]
        arrays = list_arrays(os.path.join(self.path, video.name))
        if not arrays:
            there = sorted(os.listdir(self.path), key=natural_key)
            raise ValueError(
                f"There are no boxes of the video {video.name!r}. Received: "
                f"{self.path!r} with {enumerate_names(there) or 'nothing'}. "
                f"There must be {video.name}.txt, .csv, .json or .npy, or "
                f"{video.name}/*.npy; an empty .txt if it has no objects."
            )
        return arrays

    def boxes(self, video: Video) -> Iterator[np.ndarray]:
        """Yields the boxes of each frame.

        Raises:
            ValueError: If there are no boxes of the video, a file cannot be
                read, or names a frame that the video does not have. The error
                names the file and the line or entry.
        """
        files = self.files(video)
        num_frames = count_frames(video)
        extension = os.path.splitext(files[0])[1].lower()
        if extension == ".npy":
            is_single = os.path.dirname(files[0]) == self.path
            if not is_single:
                for boxes in frame_arrays_boxes(files, video, num_frames):
                    yield self.filter(boxes)
                return
            rows = array_boxes(files[0], self.first_frame, num_frames)
        elif extension == ".txt":
            rows = text_boxes(files[0], self.first_frame, num_frames)
        else:
            is_single = os.path.isdir(self.path)
            rows = self._parse(files[0]).rows(
                video, self.first_frame, num_frames, is_single
            )
        frames, found = rows
        order = np.argsort(frames, kind="stable")
        frames, found = frames[order], found[order]
        ends = np.searchsorted(frames, np.arange(num_frames), side="right")
        start = 0
        for end in ends.tolist():
            yield self.filter(found[start:end])
            start = end

    def _parse(self, path: str) -> CsvFile | CocoFile:
        """Returns the content of a file, read again if it has changed."""
        status = os.stat(path)
        identity = status.st_size, status.st_mtime_ns
        known = self._parsed.get(path)
        if known is None or known[0] != identity:
            parsed: CsvFile | CocoFile
            if path.lower().endswith(".csv"):
                parsed = CsvFile(path)
            else:
                parsed = CocoFile(path, self.images)
            # One file for all videos; files of one video are read once anyway.
            self._parsed = {path: (identity, parsed)}
            return parsed
        return known[1]

    def _require_single_file(self) -> None:
        extension = os.path.splitext(self.path)[1].lower()
        if extension in (".csv", ".json"):
            return
        if is_array(self.path):
            # Names the way out of pickled arrays, which are common.
            array_boxes(self.path, 0, None)
        raise ValueError(
            "Boxes of all videos must be in one .csv or .json file, or in a "
            "folder with a file for each video. Received: "
            f"path={self.path!r}"
        )
