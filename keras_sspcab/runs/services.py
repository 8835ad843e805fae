"""The services that runs are logged by: MLflow, Weights & Biases."""

import os
import time
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from keras_sspcab.imports import import_optional
from keras_sspcab.runs.config import TrackingConfig

_PROJECT = "keras-sspcab"
# Of MLflow, in one request.
_MAX_SETTINGS = 100


class Service(Protocol):
    """A service that keeps runs; its methods raise what its package raises.

    Attributes:
        name: As in `[tracking]`.
        title: What it calls itself.
        where: Where the run is logged; runs elsewhere are other ones.
        is_open: Whether `open` has been called, and not `close` since.
    """

    name: str
    title: str
    where: str
    is_open: bool

    def open(
        self, known: str | None, name: str, folder: str, is_training: bool
    ) -> str:
        """Continues the known run, or begins one; returns what identifies it.

        Files for the service can go into the folder.
        """

    def describe(self) -> str:
        """Says where the run is to be seen."""

    def tell(self, settings: Mapping[str, str]) -> None:
        """Takes the settings of the run, which may have changed."""

    def measure(
        self, values: Mapping[str, float], axis: str = "", step: int = 0
    ) -> None:
        """Takes metrics; `axis` is what the step counts."""

    def upload(self, path: str, place: str) -> None:
        """Takes a file or a folder, for a place among the run's files."""

    def close(self, status: str) -> None:
        """Ends the logging for now."""


class MLflow:
    """Runs in MLflow, by its client: active runs of the user are left alone."""

    name = "mlflow"
    title = "MLflow"

    def __init__(self, settings: TrackingConfig, known: str) -> None:
        self._mlflow: Any = import_optional(
            "mlflow", "Logging to MLflow needs mlflow", "tracking"
        )
        uri = settings.mlflow_uri or known or self._mlflow.get_tracking_uri()
        self.where = uri
        self.is_open = False
        variable = os.environ.get("MLFLOW_EXPERIMENT_NAME")
        self._project = settings.project or variable or _PROJECT
        if not uri.startswith(("http:", "https:", "databricks")):
            self._check_local()

    def _check_local(self) -> None:
        """Raises a ValueError if MLflow cannot use a store on this machine."""
        try:
            self._mlflow.MlflowClient(self.where).get_experiment_by_name("")
        except Exception as error:
            raise ValueError(
                f"MLflow cannot log to {self.where!r}. Give the address of a "
                "server with --set tracking.mlflow_uri=http://HOST:5000 or in "
                "MLFLOW_TRACKING_URI; a database such as sqlite:///mlflow.db "
                "needs `pip install mlflow`, the whole package. MLflow says: "
                f"{error}"
            ) from error

    def open(
        self, known: str | None, name: str, folder: str, is_training: bool
    ) -> str:
        client = self._mlflow.MlflowClient(self.where)
        if known is None:
            experiment = client.get_experiment_by_name(self._project)
            if experiment is None:
                number = client.create_experiment(self._project)
            else:
                number = experiment.experiment_id
            known = client.create_run(number, run_name=name).info.run_id
            is_training = True
        elif is_training:
            client.update_run(known, status="RUNNING")
        self._client, self._run = client, known
        self._is_running = is_training
        self.is_open = True
        return self._run

    def describe(self) -> str:
        return f"MLflow: run {self._run} at {self.where}"

    def tell(self, settings: Mapping[str, str]) -> None:
        entities = self._mlflow.entities
        before = self._client.get_run(self._run).data.params
        new = [
            entities.Param(key, value)
            for key, value in settings.items()
            if key not in before
        ]
        for start in range(0, len(new), _MAX_SETTINGS):
            part = new[start : start + _MAX_SETTINGS]
            self._client.log_batch(self._run, params=part)
        for key, value in settings.items():
            # MLflow changes no parameter, such as epochs of a longer training.
            if before.get(key, value) != value:
                self._client.set_tag(self._run, f"changed.{key}", value)

    def measure(
        self, values: Mapping[str, float], axis: str = "", step: int = 0
    ) -> None:
        now = int(time.time() * 1000)
        metric = self._mlflow.entities.Metric
        metrics = [metric(key, v, now, step) for key, v in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def upload(self, path: str, place: str) -> None:
        if os.path.isdir(path):
            place = f"{place}/{os.path.basename(path)}"
            self._client.log_artifacts(self._run, path, place)
        else:
            self._client.log_artifact(self._run, path, place or None)

    def close(self, status: str) -> None:
        self.is_open = False
        if self._is_running:
            self._client.set_terminated(self._run, status)


class Wandb:
    """Runs in Weights & Biases, beside those that the user has open."""

    name = "wandb"
    title = "Weights & Biases"

    def __init__(self, settings: TrackingConfig, known: str) -> None:
        self._wandb: Any = import_optional(
            "wandb", "Logging to Weights & Biases needs wandb", "tracking"
        )
        variable = os.environ.get("WANDB_PROJECT")
        self.where = settings.project or known or variable or _PROJECT
        self.is_open = False
        # Its session keeps the environment that it was begun in.
        mode = os.environ.get("WANDB_MODE")
        self._mode = mode or self._wandb.setup().settings.mode
        is_online = self._mode in ("online", "shared")
        if is_online and not self._wandb.login(prompt=False):
            raise ValueError(
                "Weights & Biases knows no key of yours. Log in with `wandb "
                "login`, or log into the run folder with WANDB_MODE=offline"
            )

    def open(
        self, known: str | None, name: str, folder: str, is_training: bool
    ) -> str:
        known = known or uuid.uuid4().hex[:12]
        self._run = self._wandb.init(
            id=known,
            resume="allow",
            mode=self._mode,
            project=self.where,
            name=name,
            dir=os.path.abspath(folder),
            settings=self._wandb.Settings(
                silent=True,
                console="off",
                init_timeout=20,
                reinit="create_new",
            ),
        )
        self.is_open = True
        return known

    def describe(self) -> str:
        place = f"files in {self._run.dir}, see `wandb sync`"
        if not self._run.offline:
            place = self._run.url
        return f"Weights & Biases: {place}"

    def tell(self, settings: Mapping[str, str]) -> None:
        self._run.config.update(dict(settings), allow_val_change=True)

    def measure(
        self, values: Mapping[str, float], axis: str = "", step: int = 0
    ) -> None:
        if not axis:
            self._run.summary.update(dict(values))
            return
        for key in values:
            self._run.define_metric(key, step_metric=axis)
        self._run.log({**values, axis: step})

    def upload(self, path: str, place: str) -> None:
        name = os.path.basename(path)
        if name == "report.html":
            # To be looked at there.
            self._run.log({"report": self._wandb.Html(path)})
            return
        is_model = bool(place) or name == "model.keras"
        kind = "model" if is_model else "result"
        label = "-".join([self._run.id, *filter(None, place.split("/")), name])
        artifact = self._wandb.Artifact(label, kind)
        add = artifact.add_dir if os.path.isdir(path) else artifact.add_file
        add(path)
        self._run.log_artifact(artifact)

    def close(self, status: str) -> None:
        self.is_open = False
        self._run.finish(exit_code=int(status != "FINISHED"))


#: By the names in `[tracking]`.
SERVICES: dict[str, type[MLflow] | type[Wandb]] = {
    "mlflow": MLflow,
    "wandb": Wandb,
}
