"""Boxes in JSON files as of COCO: annotations, or a list of results."""

import json
import os
import re
from typing import Any

import numpy as np

from keras_sspcab.data.objects._box_tables import (
    Rows,
    require_known,
    standardize_rows,
)
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.frames import list_frames


class CocoFile:
    """Images of videos and the boxes in them.

    Args:
        path: A file with `images` and `annotations`, or with a list of results.
        images_path: For a list of results: a file with `images`; None if each
            result tells its video and frame itself.
    """

    def __init__(self, path: str, images_path: str | None = None) -> None:
        self.path = path
        content = _load(path)
        self._images: dict[Any, dict[str, Any]] = {}
        if isinstance(content, dict):
            entries = content.get("annotations")
            self._kind = "annotations"
            self._add_images(content, path)
        else:
            entries = content
            self._kind = "results"
            if images_path is not None:
                self._add_images(_load(images_path), images_path)
        if not isinstance(entries, list):
            raise ValueError(
                "The file must hold `images` and `annotations`, or a list of "
                f"results. Received: {path!r} without them"
            )
        # Boxes by video, each with what is known about its frame.
        self._boxes: dict[str, list[tuple[dict[str, Any], list[float], str]]]
        self._boxes = {
            self._video_of(image, f"image {key!r}"): []
            for key, image in self._images.items()
        }
        for number, entry in enumerate(entries):
            place = f"{self._kind}[{number}]"
            image = self._image_of(entry, place)
            video = self._video_of(image, place)
            box = self._box_of(entry, place)
            self._boxes.setdefault(video, []).append((image, box, place))

    def rows(
        self, video: Video, first_frame: int, num_frames: int, is_single: bool
    ) -> Rows:
        """Returns the rows of a video; see `CsvFile.rows`."""
        if not is_single:
            require_known(video.name, list(self._boxes), self.path)
        names: dict[str, int] = {}
        if video.kind == "frames":
            paths = list_frames(video.path)
            names = {os.path.basename(p): i for i, p in enumerate(paths)}
        rows = []
        places = []
        for image, box, place in self._boxes.get(video.name, []):
            frame = self._frame_of(image, names, first_frame, place)
            rows.append([frame, *box])
            places.append(place)
        values = np.array(rows, "float64").reshape(-1, 6)
        return standardize_rows(
            values, self.path, places, first_frame, num_frames
        )

    def _add_images(self, content: Any, path: str) -> None:
        images = content.get("images") if isinstance(content, dict) else None
        if not isinstance(images, list):
            raise ValueError(
                "The file must hold a list `images`. "
                f"Received: {path!r} without it"
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
            if "video" not in image and image.get("video_id") in videos:
                image = {**image, "video": videos[image["video_id"]]}
            self._images[image["id"]] = image

    def _image_of(self, entry: Any, place: str) -> dict[str, Any]:
        if not isinstance(entry, dict):
            raise ValueError(
                "Each entry must be an object with `bbox`. "
                f"Received: {entry!r} in {self.path!r}, {place}"
            )
        key = entry.get("image_id")
        try:
            if key in self._images:
                return self._images[key]
        except TypeError:
            pass
        if self._kind == "results" and {"video", "file_name"} & set(entry):
            return entry
        raise ValueError(
            "Each box must belong to an image. Received: "
            f"image_id={key!r}, which is not among the {len(self._images)} "
            f"images, in {self.path!r}, {place}. Results without `images` "
            "need the file that has them: BoxFiles(path, images=...)."
        )

    def _video_of(self, image: dict[str, Any], place: str) -> str:
        if image.get("video") is not None:
            return str(image["video"])
        name = str(image.get("file_name", "")).replace("\\", "/")
        folder = os.path.basename(os.path.dirname(name))
        if not folder:
            raise ValueError(
                "Each image must tell its video, by `video` or by the folder "
                f"in `file_name`. Received: file_name={name!r} in "
                f"{self.path!r}, {place}"
            )
        return folder

    def _frame_of(
        self,
        image: dict[str, Any],
        names: dict[str, int],
        first_frame: int,
        place: str,
    ) -> float:
        """Returns the number of a frame, as files count them."""
        for key in ("frame_id", "frame"):
            if isinstance(image.get(key), (int, float)):
                return float(image[key])
        name = os.path.basename(
            str(image.get("file_name", "")).replace("\\", "/")
        )
        if name in names:
            return float(names[name] + first_frame)
        digits = re.findall(r"\d+", os.path.splitext(name)[0])
        if names or not digits:
            raise ValueError(
                "Each image must tell its frame, by `frame_id` or by a "
                f"`file_name` that is one of the video's. Received: {image!r} "
                f"in {self.path!r}, {place}"
            )
        return float(digits[-1])

    def _box_of(self, entry: dict[str, Any], place: str) -> list[float]:
        try:
            x, y, width, height = map(float, entry["bbox"])
            confidence = float(entry.get("score", 1.0))
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                "Each entry must have a `bbox` of x, y, width and height, and "
                f"maybe a `score`. Received: bbox={entry.get('bbox')!r}, "
                f"score={entry.get('score')!r} in {self.path!r}, {place}"
            ) from None
        return [x, y, x + width - 1, y + height - 1, confidence]


def _load(path: str) -> Any:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"Cannot read the boxes {path!r}: {error}") from error
