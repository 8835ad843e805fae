"""What is kept of alarms: a line each, a picture, and a clip with its eve."""

import collections
import io
import json
import logging
import os
import queue
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from keras_sspcab import files
from keras_sspcab.data.video import video_writer
from keras_sspcab.export.watch.source import Frame

_log = logging.getLogger(__name__)

#: Longer side of frames in clips and on the page, at most.
MAX_SIDE = 1280

# Frames a second that clips have, at most; they show what has happened, and
# are compressed beside the model.
_CLIP_RATE = 10
_QUALITY = 80
# Of the frames that wait for an alarm, whatever they show.
_MAX_BYTES = 64 << 20
# Of those that come while a clip is written.
_MAX_WAITING = 200

#: How pictures and clips are named; nothing else is ever removed.
MEDIA_NAME = re.compile(r"\d{8}-\d{6}-\d{3}\.(mp4|jpg)")


def compress(pixels: np.ndarray) -> bytes:
    """Returns a JPEG of a frame, of at most `MAX_SIDE` pixels a side."""
    image = Image.fromarray(pixels)
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


class Recorder:
    """Keeps the newest frames, and writes what belongs to alarms.

    Nothing here stops the watching: what cannot be written is a warning.

    Args:
        folder: Folder of `alarms.jsonl`, and of pictures and clips in `alarms`.
        before: Seconds of a clip before its alarm; 0 and `max_seconds` 0 for no
            clips.
        max_seconds: Length of a clip, at most.
        keep: Bytes of pictures and clips, of which the oldest are removed.
        on_written: Gets each line as it is written.
    """

    def __init__(
        self,
        folder: str,
        before: float,
        max_seconds: float,
        keep: float,
        on_written: Callable[[dict[str, Any]], None] = lambda line: None,
    ) -> None:
        self.folder = folder
        self._media = os.path.join(folder, "alarms")
        os.makedirs(self._media, exist_ok=True)
        self._before, self._max_seconds = before, max_seconds
        self._keep = keep
        self._on_written = on_written
        self._ring: collections.deque[tuple[float, bytes]] = collections.deque()
        self._num_bytes = 0
        self._last = -np.inf
        self._looked_at = np.inf
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._clip: _Clip | None = None
        self._closing: list[threading.Thread] = []

    def look_at(self, frame: Frame) -> None:
        """Notes which frame is being scored, the next to raise an alarm.

        Frames before it are kept until the model has finished with it, so that
        a clip can show what led to the alarm.
        """
        self._looked_at = frame.seconds

    def add(self, frame: Frame) -> None:
        """Takes a frame of the source, and keeps it if a clip needs it."""
        seconds = frame.seconds
        if self._max_seconds <= 0:
            return
        if 0 <= seconds - self._last < 0.99 / _CLIP_RATE:
            return
        data = compress(frame.pixels)
        with self._lock:
            if seconds < self._last:
                self._ring.clear()
                self._num_bytes = 0
            self._last = seconds
            self._ring.append((seconds, data))
            self._num_bytes += len(data)
            alarm = min(seconds, self._looked_at)
            while self._ring and (
                alarm - self._ring[0][0] > self._before
                or self._num_bytes > _MAX_BYTES
            ):
                self._num_bytes -= len(self._ring.popleft()[1])
            if self._clip is not None:
                self._clip.add(seconds, data)

    def begin(self, line: dict[str, Any], picture: np.ndarray) -> None:
        """Begins the clip of an alarm; writes its line and picture."""
        name = line["id"]
        if self._max_seconds > 0:
            with self._lock:
                path = os.path.join(self._media, f"{name}.mp4")
                self._clip = _Clip(path, self._ring, self._max_seconds)
        path = os.path.join(self._media, f"{name}.jpg")
        try:
            with (
                files.replacing(path) as temporary,
                open(temporary, "wb") as file,
            ):
                # Not by Pillow, which does not notice where a disk is full.
                file.write(compress(picture))
            line["picture"] = os.path.relpath(path, self.folder)
        except OSError as error:
            cause = error.__cause__ or error
            _log.warning("No picture of the alarm: %s", cause)
        self._write(line)

    def end(self, line: dict[str, Any]) -> None:
        """Ends the clip of an alarm and, when it is written, its line.

        That happens beside the watching.
        """
        with self._lock:
            clip, self._clip = self._clip, None

        def finish() -> None:
            path = None if clip is None else clip.finish()
            if path is not None:
                line["clip"] = os.path.relpath(path, self.folder)
            try:
                with self._writing:  # another alarm may end as well
                    self._remove_oldest(line["id"])
            except OSError as error:
                _log.warning("Old clips cannot be removed: %s", error)
            self._write(line)

        self._closing = [t for t in self._closing if t.is_alive()]
        self._closing.append(threading.Thread(target=finish))
        self._closing[-1].start()

    def close(self) -> None:
        """Waits for what is being written."""
        for thread in self._closing:
            thread.join()

    def _write(self, line: dict[str, Any]) -> None:
        text = json.dumps(line, allow_nan=False, ensure_ascii=False)
        path = os.path.join(self.folder, "alarms.jsonl")
        try:
            with self._writing, open(path, "ab+") as file:
                # After a kill or a full disk the last line may be cut off.
                if file.tell() and not _ends_line(file):
                    text = f"\n{text}"
                file.write(f"{text}\n".encode())
        except OSError as error:
            _log.warning("The alarm cannot be written to %s: %s", path, error)
        self._on_written(line)

    def _remove_oldest(self, kept: str) -> None:
        """Removes our oldest files until the rest is as small as allowed.

        Not those of the alarm that has just ended, whatever the clock says.
        """
        ours = [
            entry
            for entry in os.scandir(self._media)
            if MEDIA_NAME.fullmatch(entry.name) and entry.is_file()
        ]
        found = sorted(
            (entry.name.startswith(kept), entry.name, entry.stat().st_size)
            for entry in ours
        )
        excess = sum(size for *_, size in found) - self._keep
        for is_kept, name, size in found:
            if excess <= 0 or is_kept:
                break
            os.unlink(os.path.join(self._media, name))
            excess -= size


def _ends_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


class _Clip:
    """A clip that a thread writes while its frames come."""

    def __init__(
        self,
        path: str,
        before: Sequence[tuple[float, bytes]],
        max_seconds: float,
    ) -> None:
        self._path = path
        self._frames: queue.Queue[tuple[float, bytes] | None] = queue.Queue()
        # However many: that they are not too large, the recorder sees to.
        for item in before:
            self._frames.put(item)
        self._start = before[0][0]
        self._limit = len(before) + _MAX_WAITING
        self._max_seconds = max_seconds
        self._is_long_enough = self._is_written = False
        self._thread = threading.Thread(
            target=self._run, name="keras-sspcab-clip"
        )
        self._thread.start()

    def add(self, seconds: float, data: bytes) -> None:
        """Takes a frame, unless too many wait or the clip is long enough."""
        if self._is_long_enough:
            return
        if seconds - self._start > self._max_seconds:
            self._is_long_enough = True
            self._frames.put(None)
        elif self._frames.qsize() < self._limit:
            self._frames.put((seconds, data))

    def finish(self) -> str | None:
        """Returns the path of the clip; None if it could not be written."""
        self._frames.put(None)
        self._thread.join()
        return self._path if self._is_written else None

    def _run(self) -> None:
        size = None
        try:
            with video_writer(self._path, _CLIP_RATE) as write:
                while (item := self._frames.get()) is not None:
                    seconds, data = item
                    image = Image.open(io.BytesIO(data))
                    size = size or image.size
                    # A camera may come back with another size.
                    write(np.asarray(image.resize(size)), seconds - self._start)
            self._is_written = True
        except Exception as error:  # of the disk, or the encoder
            cause = error.__cause__ or error
            _log.warning("No clip of the alarm: %s", cause)
