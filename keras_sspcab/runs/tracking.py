"""Tells MLflow and Weights & Biases what a run folder holds.

What there is to tell follows from the folder alone, and its `tracking.json`
says what has been told. So what a kill or a server that was away left out comes
with the next command, to the same logged run.
"""

import contextlib
import csv
import functools
import glob
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from keras_sspcab import files
from keras_sspcab.progress import Progress
from keras_sspcab.runs.config import TrackingConfig
from keras_sspcab.runs.folder import RunFolder, evaluated_elsewhere
from keras_sspcab.runs.parsing import read_toml
from keras_sspcab.runs.services import SERVICES, Service

# After which a server that did not answer is asked again.
_RETRY_SECONDS = 60.0

# What MLflow waits for a server by default: over four minutes, in each epoch.
_BRIEF = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}

# Of a run folder, besides exports. The configuration may hold passwords; what
# is in it is told without them.
_DOCUMENTS = ("metrics.json", "report.html")
_MODELS = ("model.keras", "export/*/*")


class RunTracker:
    """The loggers of a run besides TensorBoard; there may be none.

    Args:
        run: The run folder.
        settings: The section `[tracking]`.
        is_training: Whether a training is what is logged now.
        progress: Is told where the run is logged.

    Raises:
        ImportError: If a package is missing.
        ValueError: If a logger cannot be used as it is set up.
    """

    def __init__(
        self,
        run: RunFolder,
        settings: TrackingConfig,
        is_training: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self._run = run
        self._settings = settings
        self._is_training = is_training
        self._progress = progress or Progress()
        self._path = run.file("tracking.json")
        advice = "Remove it: the run is logged as a new one then"
        self._told: dict[str, Any] = {}
        if os.path.isfile(self._path):
            self._told = files.read_json(self._path, advice)
        names = [name for name in settings.loggers if name in SERVICES]
        self._services: list[Service] = []
        for name in names:
            known = self._told.setdefault(name, {})
            service = SERVICES[name](settings, known.get("where", ""))
            if known.get("where") != service.where:
                self._told[name] = {"where": service.where}
            self._services.append(service)
        self._asked_again_at = dict.fromkeys(names, 0.0)

    def update(self, is_last: bool = False) -> None:
        """Tells what is new. A logger that fails is warned of, once."""
        for service in self._services:
            asked_again_at = self._asked_again_at[service.name]
            if time.monotonic() >= asked_again_at or is_last:
                with self._attempting(service):
                    self._tell(service)

    def close(self, status: str) -> None:
        """Tells the rest, and that it has `"FINISHED"`, `"FAILED"` or so."""
        if not self._run.exists:
            return  # It has not begun.
        self.update(is_last=True)
        for service in self._services:
            if service.is_open:
                with self._attempting(service):
                    service.close(status)

    @contextlib.contextmanager
    def _attempting(self, service: Service) -> Iterator[None]:
        brief = {k: v for k, v in _BRIEF.items() if k not in os.environ}
        os.environ.update(brief)
        try:
            yield
        except Exception as error:  # each package has its own
            if not self._asked_again_at[service.name]:
                warnings.warn(
                    f"{service.title} does not take the run: "
                    f"{str(error).strip() or type(error).__name__}. All goes "
                    "on without it. What is missing is sent when it answers: "
                    "once a minute of training, and by evaluate, report, "
                    "export and train --resume",
                    stacklevel=3,
                )
            now = time.monotonic()
            self._asked_again_at[service.name] = now + _RETRY_SECONDS
        finally:
            for name in brief:
                os.environ.pop(name, None)

    def _tell(self, service: Service) -> None:
        told = self._told[service.name]
        if not service.is_open:
            name = "/".join(os.path.abspath(self._run.path).split(os.sep)[-2:])
            told["run"] = service.open(
                told.get("run"), name, self._run.path, self._is_training
            )
            self._save()
            self._progress.message(f"Logged by {service.describe()}")
        sent = told.setdefault("sent", {})
        for item, mark, send in self._content(service, sent):
            if sent.get(item) != mark:
                send()
                sent[item] = mark
                self._save()

    def _save(self) -> None:
        files.write_json(self._path, self._told)

    def _content(
        self, service: Service, sent: dict[str, Any]
    ) -> Iterator[tuple[str, Any, Callable[[], None]]]:
        """Yields all there is: a name, a mark of its state, what tells it."""
        run, path = self._run, self._run.file
        settings = _flatten(read_toml(path("config.toml")))
        yield "settings", settings, functools.partial(service.tell, settings)
        for stage, name in _histories(run):
            with open(path(name), encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            rest = rows[sent.get(name, 0) :]
            send = functools.partial(_send_epochs, service, stage, rest)
            yield name, len(rows), send
        if os.path.isfile(path("metrics.json")):
            # Its name is that of the file which is uploaded, too.
            values = files.read_json(path("metrics.json"), "Evaluate again")
            split = run.record.get("evaluated", {}).get("split", "test")
            if other := evaluated_elsewhere(run.record):
                # Figures of other data do not take the place of its own.
                name = os.path.basename(other.rstrip("/\\"))
                split = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)
            numbers = {
                f"{split}/{key}": float(value)
                for key, value in values.items()
                if type(value) in (int, float)
            }
            mark = _mark(path("metrics.json"))
            yield "metrics", mark, functools.partial(service.measure, numbers)
        models = _MODELS if self._settings.upload_model else ()
        for pattern in (*_DOCUMENTS, *models):
            for found in sorted(glob.glob(pattern, root_dir=run.path)):
                place = os.path.dirname(found).replace(os.sep, "/")
                send = functools.partial(service.upload, path(found), place)
                yield found, _mark(path(found)), send


@contextlib.contextmanager
def tracked_training(
    run: RunFolder, settings: TrackingConfig, progress: Progress
) -> Iterator[RunTracker]:
    """Yields the tracker of a training, and tells how it ends."""
    tracker = RunTracker(run, settings, True, progress)
    status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        # It may have been refused to go on with one that is finished.
        tracker.close("FINISHED" if run.is_finished else status)


def log_run(run: RunFolder) -> None:
    """Tells the loggers of a run what is new in its folder.

    What cannot be told is warned of.
    """
    values = read_toml(run.file("config.toml")).get("tracking", {})
    try:
        RunTracker(run, TrackingConfig(**values)).close("FINISHED")
    except (ImportError, ValueError) as error:
        warnings.warn(f"The run is not logged. {error}", stacklevel=2)


def _histories(run: RunFolder) -> list[tuple[str, str]]:
    """Returns the stages of a training and their files, in order."""
    parts = glob.glob("history-*.csv", root_dir=run.path)
    if not parts:
        names = glob.glob("history.csv", root_dir=run.path)
        return [("", name) for name in names]
    # One after the other: the oldest was begun first.
    parts.sort(key=lambda name: os.stat(run.file(name)).st_mtime_ns)
    return [(name[len("history-") : -len(".csv")], name) for name in parts]


def _send_epochs(
    service: Service, stage: str, rows: Sequence[dict[str, str]]
) -> None:
    prefix = f"{stage}/" if stage else ""
    for row in rows:
        values = {
            f"{prefix}{key}": float(value)
            for key, value in row.items()
            if value and key != "epoch"
        }
        service.measure(values, f"{prefix}epoch", int(row["epoch"]))


def _flatten(sections: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Returns what bears on results, without passwords in addresses."""
    return {
        f"{section}.{key}": re.sub(r"(?<=://)[^/@\s]+@", "", str(value))
        for section, values in sections.items()
        if section != "tracking"
        for key, value in values.items()
    }


def _mark(path: str) -> list[int]:
    """Returns what changes with a file, or with those in a folder."""
    paths = [path]
    if os.path.isdir(path):
        walk = os.walk(path)
        paths = [os.path.join(top, n) for top, _, names in walk for n in names]
    states = [os.stat(path) for path in paths]
    size = sum(state.st_size for state in states)
    return [size, max((state.st_mtime_ns for state in states), default=0)]
