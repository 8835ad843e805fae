"""What the watching shows of itself: for the page, and for status lines."""

import collections
import io
import json
import os
import threading
import time
from typing import Any

from PIL import Image

from keras_sspcab.export.watch.recording import compress
from keras_sspcab.export.watch.scoring import FrameScorer, Outputs
from keras_sspcab.export.watch.source import Frame, RateMeter, Source
from keras_sspcab.pages import data_url
from keras_sspcab.pictures.heat import COLOR_TABLE, HeatScale, heat_levels

#: Seconds of scores that the page shows.
HISTORY_SECONDS = 300.0

_MAX_SCORES = 15_000
_MAX_ALARMS = 50
# Of the file of alarms, what is read when the watching begins.
_TAIL = 1 << 16


class LiveView:
    """The newest frame, scores, alarms and counts; for several threads."""

    def __init__(self, scorer: FrameScorer, source: Source) -> None:
        self._scorer = scorer
        self._source = source
        self._lock = threading.Lock()
        self._newest: tuple[Frame, Outputs] | None = None
        self._scores: collections.deque[tuple[int, float, float, bool]] = (
            collections.deque(maxlen=_MAX_SCORES)
        )
        self._alarms: dict[str, dict[str, Any]] = {}
        self._has_older_alarms = False
        self._encoded: tuple[int, dict[str, Any]] = -1, {}
        self._verdicts = RateMeter()
        self._began = time.time()
        self.delay: float | None = None
        self.num_scored = 0
        self.num_faults = 0

    def show(self, frame: Frame, outputs: Outputs) -> None:
        """Takes the newest frame that was scored."""
        self.delay = time.monotonic() - frame.arrived
        self._verdicts.count()
        score = round(float(outputs["anomaly_score"]), 4)
        point = (
            frame.number,
            round(frame.time.timestamp(), 3),
            score,
            bool(outputs["is_anomalous"]),
        )
        with self._lock:
            self.num_scored += 1
            self._newest = frame, outputs
            self._scores.append(point)

    def last_scores(self, count: int) -> list[float]:
        """Returns the last scores, at most so many."""
        with self._lock:
            return [score for _, _, score, _ in self._scores][-count:]

    def add_alarm(self, line: dict[str, Any]) -> None:
        """Takes a line about an alarm: that it began, or that it ended."""
        with self._lock:
            known = self._alarms.get(line["id"], {})
            if line["event"] == "end":
                if not known:
                    return
                # Its score is that of the begin, its time as well.
                names = ("duration", "reason", "highest_score", "clip")
                line = {"is_over": True, **{n: line.get(n) for n in names}}
            line = {**known, **line}
            self._alarms[line["id"]] = line
            while len(self._alarms) > _MAX_ALARMS:
                del self._alarms[next(iter(self._alarms))]
                self._has_older_alarms = True

    def remember(self, folder: str) -> None:
        """Takes the last alarms that a folder knows of."""
        try:
            with open(os.path.join(folder, "alarms.jsonl"), "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL))
                self._has_older_alarms = size > _TAIL
                lines = file.read().splitlines()
        except OSError:
            return
        for text in lines:
            try:
                line = json.loads(text)
                if line["event"] == "begin" or line["id"] in self._alarms:
                    self.add_alarm(line)
            except (ValueError, KeyError, TypeError):
                continue  # cut off, by this reading or by a kill
        for alarm in self._alarms.values():
            # Whoever watched was killed.
            alarm.setdefault("is_over", True)

    def describe_status(self) -> str:
        """Says in one line how it goes."""
        source = self._source
        score, faults = self.last_scores(1), self.num_faults
        return (
            f"{source.state}: {source.num_received} frames, "
            f"{self.num_scored} scored ({self._verdicts.rate:.1f} a second), "
            f"{source.num_dropped} dropped, delay {self.delay or 0.0:.2f} s"
            + (f", score {score[0]:.3g}" if score else "")
            + (f", {faults} without a verdict" if faults else "")
        )

    def describe(self, since: int = -1, shown: int = -1) -> dict[str, Any]:
        """Returns what the page shows, as plain values.

        Scores are those of frames after `since`; the picture is left out if it
        is of the frame `shown`.
        """
        source, now = self._source, time.time()
        with self._lock:
            newest = self._newest
            scores = [
                point
                for point in self._scores
                if point[0] > since and point[1] >= now - HISTORY_SECONDS
            ]
            alarms = list(self._alarms.values())[::-1]
        frame = None
        calibration, rule = self._scorer.judged_by(newest[1] if newest else {})
        if newest is not None:
            frame = {
                "number": newest[0].number,
                "time": newest[0].time.isoformat(timespec="milliseconds"),
                "score": float(newest[1]["anomaly_score"]),
                "is_anomalous": bool(newest[1]["is_anomalous"]),
            }
            if newest[0].number != shown:
                frame |= self._pictures(*newest)
        return {
            "began": self._began,
            "source": source.name,
            "model": self._scorer.name,
            "state": source.state,
            "reason": source.reason,
            "source_rate": round(source.arrivals.rate, 1),
            "rate": round(self._verdicts.rate, 1),
            "received": source.num_received,
            "dropped": source.num_dropped,
            "delay": self.delay,
            "threshold": calibration.threshold,
            "rule": rule,
            "now": now,
            "history": HISTORY_SECONDS,
            "frame": frame,
            "scores": scores,
            "alarms": alarms,
            "has_older_alarms": self._has_older_alarms,
        }

    def _pictures(
        self, frame: Frame, outputs: Outputs
    ) -> dict[str, str | None]:
        """Returns a frame and the colors of its map, as URLs of data."""
        number, pictures = self._encoded
        if number == frame.number:
            return pictures
        heat = None
        calibration, _ = self._scorer.judged_by(outputs)
        scale = HeatScale.of(calibration.pixel_threshold, ())
        if "anomaly_map" in outputs and scale.is_calibrated:
            levels = heat_levels(outputs["anomaly_map"], scale.limit)
            buffer = io.BytesIO()
            Image.fromarray(COLOR_TABLE[levels]).save(buffer, "PNG")
            heat = data_url(buffer.getvalue(), "png")
        image = data_url(compress(frame.pixels), "jpeg")
        # For all who look.
        self._encoded = frame.number, {"image": image, "heat": heat}
        return self._encoded[1]
