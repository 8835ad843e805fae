"""The watching: frames of a source, scored one by one, to alarms."""

import contextlib
import dataclasses
import datetime
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_sspcab.checks import standardize_int, standardize_number
from keras_sspcab.export.serving.server import ServerOptions
from keras_sspcab.export.watch.alarms import AlarmCounter
from keras_sspcab.export.watch.live import LiveView
from keras_sspcab.export.watch.recording import Recorder
from keras_sspcab.export.watch.scoring import FrameScorer, Outputs
from keras_sspcab.export.watch.source import Frame, Source
from keras_sspcab.export.watch.webhook import Webhook
from keras_sspcab.imports import import_optional
from keras_sspcab.locks import folder_lock
from keras_sspcab.pictures.heat import HeatScale
from keras_sspcab.pictures.video import annotate_frame
from keras_sspcab.runs.prediction import Annotator

_log = logging.getLogger(__name__)

_STATUS_SECONDS = 60.0
_MAX_BOXES = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """When there is an alarm, what is kept of it, and when a source is lost.

    Args:
        alarm_after: Anomalous frames in a row after which an alarm begins.
        clear_after: Normal frames in a row after which it ends.
        before: Seconds that a clip shows before the alarm.
        max_clip: Seconds of a clip, at most, and more than `before`; 0 for no
            clips.
        keep: Bytes of clips and pictures, of which the oldest are removed.
        webhook: URL that alarms are posted to, as JSON; None for nowhere.
        timeout: Seconds without a frame after which the source is lost.
        reconnect: Tries in a row to open it again, before it is given up. None
            (the default) tries for ever.
        fast: Plays a file as fast as it can be scored, leaving out no frame.

    Raises:
        ValueError: If an option is out of its range.

    Example:
    >>> WatchOptions(alarm_after=5).clear_after
    10
    """

    alarm_after: int = 3
    clear_after: int = 10
    before: float = 5.0
    max_clip: float = 60.0
    keep: float = 1e9
    webhook: str | None = dataclasses.field(default=None, repr=False)
    timeout: float = 10.0
    reconnect: int | None = None
    fast: bool = False

    def __post_init__(self) -> None:
        AlarmCounter(self.alarm_after, self.clear_after)
        for name in ("before", "max_clip", "keep"):
            standardize_number(getattr(self, name), name)
        if 0 < self.max_clip <= self.before:
            raise ValueError(
                "A clip of at most `max_clip` seconds, which begins `before` "
                "seconds before its alarm, would end before it. Received: "
                f"max_clip={self.max_clip:g}, before={self.before:g}. Choose a "
                "longer `max_clip`, 0 for no clips, or a shorter `before`"
            )
        standardize_number(self.timeout, "timeout", excluded=0)
        if self.reconnect is not None:
            standardize_int(self.reconnect, "reconnect", 0)


@dataclasses.dataclass
class _Alarm:
    """An alarm in progress: the line that began it, and its frames so far."""

    line: dict[str, Any]
    first: Frame
    last: Frame
    highest: float
    num_frames: int = 1


class Watch:
    """Watches a camera, a stream or a video with a model.

    Where frames come faster than they can be scored, the newest is taken, so
    that alarms are not late. A source that is lost is opened again. Alarms are
    lines in `alarms.jsonl`, with a picture and a clip each.

    Args:
        scorer: The model, from `load_frame_scorer`.
        source: Number or device of a camera, URL, video file or folder of
            frames.
        folder: Folder for alarms, which one process at a time writes to.
        options: When there is an alarm, and what is kept of it. None takes the
            defaults.
        page: How to serve the live page: its `host`, `rest_port`,
            `allowed_hosts` and `token` count. None for no page.

    Raises:
        ValueError: If there is no such source, or an option does not fit it.
        ImportError: If packages of the extras `video` or, for the page, `serve`
            are missing.

    Example:
    >>> watch = Watch(scorer, "rtsp://door/1", "alarms")  # doctest: +SKIP
    >>> watch.run()  # doctest: +SKIP
    """

    def __init__(
        self,
        scorer: FrameScorer,
        source: int | str | os.PathLike[str],
        folder: str | os.PathLike[str],
        options: WatchOptions | None = None,
        page: ServerOptions | None = None,
    ) -> None:
        self.options = options = options or WatchOptions()
        self.folder = os.fspath(folder)
        self._scorer = scorer
        self.source = Source(
            str(source),
            scorer.preprocessing,
            scorer.span,
            options.timeout,
            options.reconnect,
            options.fast,
            self._record,
        )
        self.live = LiveView(scorer, self.source)
        self._page: Any = None
        if page is not None:
            for package in ("starlette", "uvicorn"):
                import_optional(package, "The live page needs it", "serve")
            from keras_sspcab.export.watch.page import PageServer

            self._page = PageServer(self.live, self.folder, page)
        webhook = options.webhook
        self._webhook = None if webhook is None else Webhook(webhook)
        self._counter = AlarmCounter(options.alarm_after, options.clear_after)
        self._recorder: Recorder | None = None
        self._connection: int | None = None
        self._alarm: _Alarm | None = None
        self._last_id = 0

    @property
    def page_url(self) -> str | None:
        """Address of the live page while it is served; None without one."""
        return None if self._page is None else self._page.url

    def run(self, is_stopping: Callable[[], bool] = lambda: False) -> None:
        """Watches until the file ends or `is_stopping`, asked often, says so.

        Raises:
            ValueError: If the source is lost for good, another process watches
                into the same folder, or this watch has run before.
        """
        if self._recorder is not None:
            raise ValueError("A watch runs once. Make another one")
        # Not what was typed: it may hold a password.
        command = ["keras-sspcab", "watch", self._scorer.name, self.source.name]
        with contextlib.ExitStack() as stack:
            stack.enter_context(folder_lock(self.folder, command=command))
            options = self.options
            self.live.remember(self.folder)
            self._recorder = Recorder(
                self.folder,
                options.before,
                options.max_clip,
                options.keep,
                self._tell,
            )
            if self._webhook is not None:
                stack.callback(self._webhook.close)
            stack.callback(self._recorder.close)
            if self._page is not None:
                stack.enter_context(self._page)
            stack.callback(self._end_alarm, "stopped")
            stack.callback(self.source.stop)
            self.source.start()
            self._loop(is_stopping)
        if self.source.state == "lost":
            raise ValueError(
                f"The source {self.source.name} is lost: {self.source.reason}"
            )

    def _loop(self, is_stopping: Callable[[], bool]) -> None:
        next_status = time.monotonic() + _STATUS_SECONDS
        while not is_stopping():
            frames = self.source.take(timeout=0.2)
            if frames:
                self._look(frames)
            if self.source.state in ("stalled", "reconnecting", "lost"):
                # What happens meanwhile, nobody knows.
                self._end_alarm("source lost")
            if not frames and self.source.has_ended:
                return
            if time.monotonic() >= next_status:
                next_status += _STATUS_SECONDS
                _log.info(self.live.describe_status())

    def _record(self, frame: Frame) -> None:
        if self._recorder is not None:
            self._recorder.add(frame)

    def _look(self, frames: Sequence[Frame]) -> None:
        frame = frames[-1]
        assert self._recorder is not None
        self._recorder.look_at(frame)
        if frame.connection != self._connection:
            self._connection = frame.connection
            self._end_alarm("source lost")
        try:
            outputs = self._scorer(frames)
        except ValueError as error:
            self.live.num_faults += 1
            if self.live.num_faults == 1:
                _log.warning("%s. Further ones are only counted.", error)
            return
        if outputs is None:
            return
        self.live.show(frame, outputs)
        change = self._counter.update(bool(outputs["is_anomalous"]))
        if change == "begin":
            self._begin_alarm(frame, outputs)
        elif self._alarm is not None:
            self._alarm.last = frame
            self._alarm.num_frames += 1
            score = float(outputs["anomaly_score"])
            self._alarm.highest = max(self._alarm.highest, score)
            if change == "end":
                self._end_alarm("normal again")

    def _begin_alarm(self, frame: Frame, outputs: Outputs) -> None:
        score = float(outputs["anomaly_score"])
        height, width = frame.pixels.shape[:2]
        calibration, rule = self._scorer.judged_by(outputs)
        boxes, peak, anomaly_map = np.empty((0, 4)), None, None
        if "anomaly_map" in outputs:
            anomaly_map = np.asarray(outputs["anomaly_map"])
            annotator = Annotator(calibration)
            boxes = annotator.boxes(outputs, (height, width))[:_MAX_BOXES]
            row, column = np.unravel_index(
                np.argmax(anomaly_map), anomaly_map.shape
            )
            rows, columns = anomaly_map.shape
            peak = [
                int((column + 0.5) * width / columns),
                int((row + 0.5) * height / rows),
            ]
        line = {
            "event": "begin",
            "id": self._new_id(frame.time),
            "time": frame.time.isoformat(timespec="milliseconds"),
            "source": self.source.name,
            "model": self._scorer.name,
            "frame": frame.number,
            "seconds": round(frame.seconds, 3),
            "score": round(score, 4),
            "threshold": calibration.threshold,
            "rule": rule,
            "frame_size": [width, height],
            "peak": peak,
            "boxes": np.rint(boxes).astype(int).tolist(),
            "picture": None,
        }
        scale = HeatScale.of(calibration.pixel_threshold, ())
        picture = annotate_frame(
            frame.pixels,
            self.live.last_scores(frame.pixels.shape[1]),
            calibration.threshold,
            anomaly_map if scale.is_calibrated else None,
            scale.limit,
            boxes.tolist(),
            f"{frame.time:%Y-%m-%d %H:%M:%S}",
            True,
        )
        self._alarm = _Alarm(line, frame, frame, score)
        assert self._recorder is not None
        self._recorder.begin(line, picture)

    def _end_alarm(self, reason: str) -> None:
        self._counter.reset()
        alarm, self._alarm = self._alarm, None
        if alarm is None or self._recorder is None:
            return
        line, last = alarm.line, alarm.last
        self._recorder.end(
            {
                "event": "end",
                **{key: line[key] for key in ("id", "source", "model")},
                "time": last.time.isoformat(timespec="milliseconds"),
                "began": line["time"],
                "frame": last.number,
                "seconds": round(last.seconds, 3),
                "duration": round(last.seconds - alarm.first.seconds, 3),
                "num_frames": alarm.num_frames,
                "highest_score": round(alarm.highest, 4),
                "threshold": line["threshold"],
                "reason": reason,
                "picture": line["picture"],
                "clip": None,
            }
        )

    def _tell(self, line: dict[str, Any]) -> None:
        """Passes on a line of an alarm."""
        self.live.add_alarm(line)
        if self._webhook is not None:
            self._webhook.send(line)
        if line["event"] == "begin":
            _log.info("Alarm %s: score %.3g", line["id"], line["score"])
        else:
            _log.info(
                "Alarm %s is over: %s after %.1f s, score up to %.3g",
                *(line["id"], line["reason"], line["duration"]),
                line["highest_score"],
            )

    def _new_id(self, moment: datetime.datetime) -> str:
        """Names an alarm by its time in UTC, which no clock repeats."""
        milliseconds = round(moment.timestamp() * 1000)
        self._last_id = max(milliseconds, self._last_id + 1)
        seconds, rest = divmod(self._last_id, 1000)
        utc = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
        return f"{utc:%Y%m%d-%H%M%S}-{rest:03d}"
