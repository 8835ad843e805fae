"""Cameras, streams and files, read in a thread that keeps the newest frames."""

import collections
import contextlib
import dataclasses
import datetime
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from keras_sspcab.data.video import iterate_timed_frames, make_video
from keras_sspcab.data.video.files import iterate_file
from keras_sspcab.imports import import_optional
from keras_sspcab.preprocessing import Preprocessing

_log = logging.getLogger(__name__)

# Seconds before one tries again to reach a source.
_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)

# How FFmpeg calls the cameras of a system; the number stands for `{}`.
_DEVICES = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}"),
}

_RATE_SECONDS = 5.0

# Over all sources: a model may get frames of one after those of another.
_connections = itertools.count()

# Seconds for which no camera sends the very same pixels, and what is said then.
_MOST_ALIKE = 60.0
_FROZEN = "the same picture over and over"


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame: its pixels, uint8 `(height, width, 3)`, and where it is from."""

    number: int  # from 0, over all connections
    connection: int  # another where frames do not follow each other
    pixels: np.ndarray
    time: datetime.datetime  # when it came, with its zone
    seconds: float  # of its video, or since the watching began
    arrived: float  # on the clock that does not jump


class RateMeter:
    """How many there were a second, of late."""

    def __init__(self) -> None:
        self._times: collections.deque[float] = collections.deque(maxlen=600)

    def count(self) -> None:
        """Counts one now."""
        self._times.append(time.monotonic())

    @property
    def rate(self) -> float:
        """The rate in the last seconds; 0 without any."""
        since = time.monotonic() - _RATE_SECONDS
        recent = [moment for moment in tuple(self._times) if moment >= since]
        if len(recent) < 2:
            return 0.0
        return (len(recent) - 1) / max(time.monotonic() - recent[0], 1e-3)


def hide_secrets(source: str) -> str:
    """Returns a source without user, password and query of its URL.

    Raises:
        ValueError: If it cannot be told where the password ends.
    """
    if "://" not in source:
        return source
    parts = urlsplit(source)
    rest = source.partition("://")[2].removeprefix(parts.netloc)
    if ":" in parts.netloc and "@" in rest:
        raise ValueError(
            "It cannot be told where the password of a URL ends. In a password "
            "write / as %2F, ? as %3F, # as %23 and @ as %40; in a path or "
            "query write @ as %40. "
            f"Received: a URL that begins with {parts.scheme}://"
        )
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


class Source:
    """A camera, a stream or a video that a thread reads.

    Never more than `window` frames wait: newer ones push older ones out, but
    for a file that is played `fast`, which waits itself.

    Args:
        source: Number or device of a camera, URL, video file or folder of
            frames. Names of environment variables in it, such as `$PASSWORD`,
            are replaced.
        preprocessing: White level of sources of 16 bits.
        window: Successive frames to keep.
        timeout: Seconds without a frame after which a source is lost.
        reconnect: Tries in a row to open it again; None for any number.
        fast: Plays a file as fast as frames are taken.
        on_frame: Gets every frame, in the thread.
    """

    def __init__(
        self,
        source: str,
        preprocessing: Preprocessing | None = None,
        window: int = 1,
        timeout: float = 10.0,
        reconnect: int | None = None,
        fast: bool = False,
        on_frame: Callable[[Frame], None] | None = None,
    ) -> None:
        self._source = os.path.expandvars(source)
        self.name = hide_secrets(self._source)
        self._preprocessing = preprocessing or Preprocessing()
        self._timeout = timeout
        self._reconnect = reconnect
        self._fast = fast
        self._on_frame = on_frame
        self._read = self._reader()
        if fast and not self.is_file:
            raise ValueError(
                "Only a file can be played fast. "
                f"Received: {self.name}, fast=True"
            )
        self._state, self.reason = "connecting", ""
        self.num_received = 0
        self.num_dropped = 0
        self.arrivals = RateMeter()
        self._pending: collections.deque[Frame] = collections.deque(
            maxlen=window
        )
        self._num_new = 0
        self._last_arrival = self._start = time.monotonic()
        # A part of the pixels, and since when they have been the same.
        self._sample, self._same_since = b"", 0.0
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        # One that hangs in a driver must not keep the process.
        self._thread = threading.Thread(
            target=self._run, name="keras-sspcab-read", daemon=True
        )

    @property
    def state(self) -> str:
        """connecting, connected, stalled, reconnecting, lost or ended."""
        silent = time.monotonic() - self._last_arrival > self._timeout
        if self._state == "connected" and silent and not self.is_file:
            return "stalled"
        return self._state

    @property
    def has_ended(self) -> bool:
        """Whether no frame will come any more."""
        return self._state in ("lost", "ended") and not self._num_new

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the reading, and waits for it shortly."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def take(self, timeout: float) -> list[Frame]:
        """Returns the frames since the last call, all of one connection.

        At most the `window` newest; none if none comes in time.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._num_new or self.has_ended, timeout
            )
            new = list(self._pending)
            self.num_dropped += max(0, self._num_new - 1)
            self._num_new = 0
            self._pending.clear()
            self._changed.notify_all()
        return new

    def _reader(self) -> Callable[[], Iterator[tuple[float, np.ndarray]]]:
        """Returns what opens the source and yields times and frames."""
        import_optional("av", "Cameras and videos need PyAV", "video")
        source, how = self._source, self._preprocessing
        options: dict[str, Any] = {
            "timeout": (self._timeout, self._timeout),
            "options": {"fflags": "nobuffer", "flags": "low_delay"},
        }
        self.is_file = False
        if source.isdecimal() or source.startswith("/dev/"):
            if sys.platform not in _DEVICES:
                raise ValueError(
                    "Cameras are read by number on Linux and macOS. Received: "
                    f"{source}. Give the URL of a stream"
                )
            options["format"], path = _DEVICES[sys.platform]
            if source.isdecimal():
                source = path.format(source)
        elif "://" not in source:
            if not os.path.exists(source):
                raise ValueError(
                    "The source must be the number or device of a camera (0, "
                    "/dev/video0), a URL (rtsp://..., http://...) or a video. "
                    f"There is none at {source!r}"
                )
            self.is_file = True
            video = dataclasses.replace(make_video(source), preprocessing=how)
            return lambda: iterate_timed_frames(video)
        elif source.startswith("rtsp"):
            # Over UDP packets get lost, and frames are torn.
            options["options"]["rtsp_transport"] = "tcp"
        return lambda: iterate_file(source, None, 3, None, how, **options)

    def _run(self) -> None:
        try:
            self._read_on()
        except BaseException as error:
            self._end("lost", f"{type(error).__name__}: {error}")
            raise

    def _read_on(self) -> None:
        failures = 0
        while True:
            before = self.num_received
            reason = "it has ended"
            try:
                self._read_once(next(_connections))
                if self.is_file:
                    return self._end("ended", "")
            except (ValueError, OSError) as error:
                reason = self._describe(error)
            if self._stopping.is_set():
                return self._end("ended", "")
            failures = 1 if self.num_received > before else failures + 1
            if self.is_file or failures - 1 == self._reconnect:
                return self._end("lost", reason)
            wait = _WAITS[min(failures, len(_WAITS)) - 1]
            if reason != self.reason:
                # Not at every try: a camera may be away for days.
                _log.warning(
                    "The source %s is lost: %s. Trying to open it again.",
                    *(self.name, reason),
                )
            self._state, self.reason = "reconnecting", reason
            self._stopping.wait(wait)
            if self._stopping.is_set():
                return self._end("ended", "")

    def _read_once(self, connection: int) -> None:
        reader: Any = self._read()
        with contextlib.closing(reader) as frames:
            begin = time.monotonic()
            for seconds, pixels in frames:
                if self.is_file and not self._fast:
                    self._stopping.wait(begin + seconds - time.monotonic())
                if self._stopping.is_set():
                    return
                if self._state != "connected":
                    if self._state == "reconnecting":
                        _log.info("The source is back.")
                    self._state, self.reason = "connected", ""
                self._deliver(connection, seconds, pixels)

    def _deliver(
        self, connection: int, seconds: float, pixels: np.ndarray
    ) -> None:
        now = time.monotonic()
        frame = Frame(
            self.num_received,
            connection,
            pixels,
            datetime.datetime.now().astimezone(),
            seconds if self.is_file else now - self._start,
            now,
        )
        self._look_for_change(pixels, now)
        if self._on_frame is not None:
            self._on_frame(frame)
        self.arrivals.count()
        with self._changed:
            if self._fast:
                self._changed.wait_for(
                    lambda: not self._num_new or self._stopping.is_set()
                )
            if self._pending and self._pending[0].connection != connection:
                # They do not follow each other.
                self.num_dropped += self._num_new
                self._num_new = 0
                self._pending.clear()
            self._pending.append(frame)
            self._num_new += 1
            self.num_received += 1
            self._last_arrival = now
            self._changed.notify_all()

    def _look_for_change(self, pixels: np.ndarray, now: float) -> None:
        """Warns once if a camera keeps sending identical frames."""
        sample = pixels[::16, ::16].tobytes()
        if sample != self._sample:
            self._sample, self._same_since = sample, now
            if self.reason == _FROZEN:
                self.reason = ""
        elif not (self.is_file or self.reason) and (
            now - self._same_since > _MOST_ALIKE
        ):
            _log.warning("The source sends %s: is it frozen?", _FROZEN)
            self.reason = _FROZEN

    def _describe(self, error: Exception) -> str:
        cause = error.__cause__ or error
        if type(cause).__name__ == "ExitError":
            return f"no frame came for {self._timeout:g} s"
        text = getattr(cause, "strerror", None) or str(cause)
        text = str(error) if self.is_file else text
        return text.replace(self._source, self.name)

    def _end(self, state: str, reason: str) -> None:
        with self._changed:
            self._state, self.reason = state, reason
            self._changed.notify_all()
