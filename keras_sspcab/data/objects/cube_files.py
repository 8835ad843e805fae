"""Files with the objects of a video, cut out of frames and flows.

A file is HDF5 (`.h5`), one for each video. Rows are objects, in the order of
their frames and, within a frame, in that of the proposals:

=============  ==============================  ===============================
dataset        shape and type                  content
=============  ==============================  ===============================
`appearance`   `(n, T, S, S, C)` uint8         crops of frames t-T+1 to t, RGB
                                               or gray
`motion`       `(n, T, S, S, 2)` float32       crops of the flows to these
                                               frames, in pixels of the video
`next_motion`  `(n, S, S, 2)` float32          crop of the flow from t to t+1
`boxes`        `(n, 5)` float32                x_min, y_min, x_max, y_max
                                               (inclusive, within the frame)
                                               and confidence
`frames`       `(n,)` int32                    t, from 0
`mask`         `(n, S, S, 1)` uint8            1 where frame t shows the object;
                                               only if there are masks
=============  ==============================  ===============================

All crops of a row are of the same box. Before a video's first frame, that frame
and its flow are repeated; the flow from the last frame is 0. Attributes of the
file: `format` (`keras-sspcab cubes`), `version` (1), `fingerprint` (of the
video's files and all settings), `settings` (JSON), `video` (name),
`num_frames`, `frame_size` (height, width) and `num_skipped` (boxes beside the
frame, which are left out).

Each row is a chunk of its own and not compressed, so that single rows are read
fast in any order.
"""

import dataclasses
import json
from typing import Any

import h5py
import numpy as np

FORMAT = "keras-sspcab cubes"
VERSION = 1


@dataclasses.dataclass(frozen=True)
class CubeFile:
    """A file with the objects of a video; see `extract_cubes`.

    Attributes:
        path: The file.
        name: Name of the video.
        fingerprint: Digest of the video's files and all settings.
        num_objects: Rows.
        num_frames: Frames of the video, also those without objects.
        frame_size: Height and width of the frames.
        length, size, channels: T, S and C.
        num_skipped: Boxes that were left out as they lie beside the frame.
        has_masks: Whether there is the dataset `mask`.

    Example:
    >>> open_cube_file("objects/street.h5").num_objects  # doctest: +SKIP
    1834
    """

    path: str
    name: str
    fingerprint: str
    num_objects: int
    num_frames: int
    frame_size: tuple[int, int]
    length: int
    size: int
    channels: int
    num_skipped: int
    has_masks: bool = False

    def read(self, name: str) -> np.ndarray:
        """Returns a whole dataset, such as `"boxes"`."""
        with open_hdf5(self.path) as file:
            return file[name][()]


def open_cube_file(path: Any) -> CubeFile:
    """Reads what a file of objects holds, or raises a ValueError.

    Example:
    >>> open_cube_file("objects/street.h5").name  # doctest: +SKIP
    'street'
    """
    path = str(path)
    with open_hdf5(path) as file:
        attributes = file.attrs
        kind = attributes.get("format"), attributes.get("version")
        if kind != (FORMAT, VERSION):
            raise ValueError(
                "The file must hold objects that `extract_cubes` of this "
                f"version, {VERSION}, has cut out. Received: {path!r} of "
                f"format and version {kind}. Extract the objects again."
            )
        num_objects, length, size, _, channels = file["appearance"].shape
        return CubeFile(
            path=path,
            name=str(attributes["video"]),
            fingerprint=str(attributes["fingerprint"]),
            num_objects=num_objects,
            num_frames=int(attributes["num_frames"]),
            frame_size=tuple(attributes["frame_size"].tolist()),
            length=length,
            size=size,
            channels=channels,
            num_skipped=int(attributes["num_skipped"]),
            has_masks="mask" in file,
        )


class CubeWriter:
    """Appends objects to a new file, in constant memory."""

    def __init__(
        self, path: str, length: int, size: int, channels: int, with_masks: bool
    ) -> None:
        self.length, self.size, self.channels = length, size, channels
        crop = (size, size)
        layout: dict[str, tuple[tuple[int, ...], str]] = {
            "appearance": ((length, *crop, channels), "|u1"),
            "motion": ((length, *crop, 2), "<f4"),
            "next_motion": ((*crop, 2), "<f4"),
            "boxes": ((5,), "<f4"),
            "frames": ((), "<i4"),
        }
        if with_masks:
            layout["mask"] = ((*crop, 1), "|u1")
        self._file = h5py.File(path, "w")
        for name, (shape, dtype) in layout.items():
            # Rows of a few bytes are many to a chunk.
            chunks = (1 if len(shape) > 1 else 1024, *shape)
            self._file.create_dataset(
                name, (0, *shape), dtype, chunks=chunks, maxshape=(None, *shape)
            )

    def append(self, **rows: np.ndarray) -> None:
        """Adds rows, given for each dataset."""
        for name, values in rows.items():
            dataset = self._file[name]
            start = len(dataset)
            dataset.resize(start + len(values), axis=0)
            dataset[start:] = values

    def finish(self, settings: Any, **attributes: Any) -> None:
        """Writes the attributes."""
        self._file.attrs.update(
            attributes,
            settings=json.dumps(settings, sort_keys=True),
            format=FORMAT,
            version=VERSION,
        )

    def close(self) -> None:
        """Closes the file, finished or not."""
        self._file.close()


def open_hdf5(path: str) -> h5py.File:
    """Opens a file, or raises a ValueError that names it."""
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(
            f"The file of objects {path!r} cannot be read: {error}"
        ) from error
