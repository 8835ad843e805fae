"""Images whose answer somebody has marked as wrong, kept in a folder."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_sspcab import files
from keras_sspcab.data.decoding import image_format
from keras_sspcab.data.file_system import naming
from keras_sspcab.data.image_files import pixels_of
from keras_sspcab.data.scanning import GOOD, is_image

#: Where images lie by what was wrong about their answer.
MARKS = {"false_alarm": ("train", GOOD), "missed": ("test", "missed")}

# So that a page that is open to many cannot fill the disk.
_MOST = 10_000

_EXTENSIONS = {"JPEG": ".jpg", "TIFF": ".tif"}


class MarkedImages:
    """False alarms and missed defects, for the next calibration or training.

    The folder is laid out like MVTec AD, so that all commands take it as data:
    false alarms are normal images, in `train/good`, and missed defects lie in
    `test/missed`. What was marked, when and why stands in `marks.jsonl`, a line
    of JSON for each mark.

    Args:
        path: The folder; it need not exist.

    Example:
    >>> marked = MarkedImages("feedback")
    >>> marked.add("screws/test/good/003.png", "false_alarm")  # doctest: +SKIP
    PosixPath('feedback/train/good/003-5d41402a.png')
    >>> len(marked.false_alarms), len(marked.missed)
    (0, 0)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def false_alarms(self) -> list[Path]:
        """The normal images that were flagged, by name."""
        return self._images("false_alarm")

    @property
    def missed(self) -> list[Path]:
        """The defective images that were not flagged, by name."""
        return self._images("missed")

    def add(
        self,
        image: str | os.PathLike[str] | bytes,
        mark: str,
        name: str | None = None,
        answer: Mapping[str, Any] | None = None,
    ) -> Path:
        """Keeps a copy of an image; returns where.

        The same image is kept once, under its last mark.

        Args:
            image: Path of the file, or its content.
            mark: `"false_alarm"` for a normal image that was flagged, or
                `"missed"` for a defective one that was not.
            name: What the file was called. Defaults to the name of the path.
            answer: What is known of the answer, such as the version of the
                model and the score; numbers, texts and None.

        Raises:
            ValueError: If it is no image that can be read, the mark is unknown,
                or 10,000 images are kept already.
        """
        if mark not in MARKS:
            raise ValueError(
                f"An answer is marked as one of: {', '.join(MARKS)}. "
                f"Received: mark={mark!r}"
            )
        if isinstance(image, bytes):
            content = image
        else:
            content = Path(image).read_bytes()
            name = name or os.path.basename(image)
        with naming(f"the image {name or ''}"):
            pixels_of(content, 3, dtype=None)
        digest = hashlib.sha256(content).hexdigest()
        known = self._find(digest)
        if known is None and len(self.false_alarms + self.missed) >= _MOST:
            raise ValueError(
                f"{self.path} holds {_MOST:,} images. Use them, and begin "
                "another folder"
            )
        kind = image_format(content[:12]) or "png"
        suffix = _EXTENSIONS.get(kind, f".{kind.lower()}")
        stem = _plain(os.path.splitext(name or "image")[0])
        target = self._folder(mark) / f"{stem}-{digest[:8]}{suffix}"
        note = _write_note(mark, target, digest, answer)
        target.parent.mkdir(parents=True, exist_ok=True)
        if known is None:
            with files.replacing(os.fspath(target)) as temporary:
                Path(temporary).write_bytes(content)
        else:
            os.replace(known, target)
        self._append(note)
        return target

    def remove(self, image: bytes) -> bool:
        """Takes a mark back; returns whether there was one."""
        digest = hashlib.sha256(image).hexdigest()
        known = self._find(digest)
        if known is None:
            return False
        known.unlink()
        self._append(_write_note("none", known, digest, None))
        return True

    def _folder(self, mark: str) -> Path:
        return self.path.joinpath(*MARKS[mark])

    def _images(self, mark: str) -> list[Path]:
        folder = self._folder(mark)
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        return [folder / name for name in names if is_image(name)]

    def _find(self, digest: str) -> Path | None:
        """Returns the file with this content, whatever it was called."""
        for path in (*self.false_alarms, *self.missed):
            if path.stem.endswith(f"-{digest[:8]}") and (
                files.sha256_of(path) == digest
            ):
                return path
        return None

    def _append(self, note: str) -> None:
        # One write to the end of the file: two processes do not mix lines.
        with open(self.path / "marks.jsonl", "a", encoding="utf-8") as file:
            file.write(f"{note}\n")


def _write_note(
    mark: str, path: Path, digest: str, answer: Mapping[str, Any] | None
) -> str:
    """Returns a line of JSON; numbers that are not finite become null."""
    entry: dict[str, Any] = {
        "time": files.now(),
        "mark": mark,
        "image": path.name,
        "sha256": digest,
    }
    for name, value in (answer or {}).items():
        plain = value.item() if isinstance(value, np.generic) else value
        is_lost = isinstance(plain, float) and not math.isfinite(plain)
        entry[name] = None if is_lost else plain
    try:
        return json.dumps(entry, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "The `answer` argument must hold numbers, texts and None. "
            f"Received: answer={answer!r}"
        ) from error


def _plain(name: str) -> str:
    """Returns a name that is valid in all file systems, and never hidden."""
    kept = "".join(c if c.isalnum() or c in "_-." else "_" for c in name)
    return files.shorten(kept.strip("._"), 80).rstrip("._") or "image"
