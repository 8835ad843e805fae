"""Boxes in JSON files as of COCO: annotations, or a list of results."""

import json
import os
from typing import Any

from keras_sspcab.data.objects.box_tables import BoxTable


def read_coco(path: str, images_path: str | None = None) -> BoxTable:
    """Reads annotations with their images, or a list of results.

    Args:
        path: The file.
        images_path: For a list of results: a file with `images`; None if each
            result tells its video and frame itself.

    Raises:
        ValueError: If the file is not as described. The error names the entry.
    """
    table = BoxTable(path)
    content = _load_json(path)
    has_annotations = isinstance(content, dict)
    entries = content.get("annotations") if has_annotations else content
    if not isinstance(entries, list):
        raise ValueError(
            "The file must hold `images` and `annotations`, or a list of "
            f"results. Received: {path!r} without them"
        )
    images: dict[Any, dict[str, Any]] = {}
    if has_annotations:
        images = _images_of(content, path)
    elif images_path is not None:
        images = _images_of(_load_json(images_path), images_path)
    for key, image in images.items():
        table.rows.setdefault(_video_of(image, table, f"image {key!r}"), [])
    for number, entry in enumerate(entries):
        kind = "annotations" if has_annotations else "results"
        place = f"{kind}[{number}]"
        if not isinstance(entry, dict):
            raise table.error(
                "Each entry must be an object with `bbox`.",
                repr(entry),
                place,
            )
        key = entry.get("image_id")
        if isinstance(key, (int, str)) and key in images:
            image = images[key]
        elif not has_annotations and {"video", "file_name"} & set(entry):
            image = entry
        else:
            raise table.error(
                "Each box must belong to an image. Results without "
                "`images` need the file that has them: "
                "BoxFiles(path, images=...).",
                f"image_id={key!r}, which is not among the {len(images)} "
                "images,",
                place,
            )
        frame = image.get("frame_id", image.get("frame"))
        if not isinstance(frame, (int, float)):
            frame = os.path.basename(_file_name(image))
        video = _video_of(image, table, place)
        table.add(video, frame, _box_of(entry, table, place), place)
    return table


def _video_of(image: dict[str, Any], table: BoxTable, place: str) -> str:
    if image.get("video") is not None:
        return str(image["video"])
    folder = os.path.basename(os.path.dirname(_file_name(image)))
    if not folder:
        raise table.error(
            "Each image must tell its video, by `video` or by the folder "
            "in `file_name`.",
            f"file_name={_file_name(image)!r}",
            place,
        )
    return folder


def _box_of(entry: dict[str, Any], table: BoxTable, place: str) -> list[float]:
    try:
        x, y, width, height = map(float, entry["bbox"])
        confidence = float(entry.get("score", 1.0))
    except (KeyError, TypeError, ValueError):
        raise table.error(
            "Each entry must have a `bbox` of x, y, width and height, and "
            "maybe a `score`.",
            f"bbox={entry.get('bbox')!r}, score={entry.get('score')!r}",
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
