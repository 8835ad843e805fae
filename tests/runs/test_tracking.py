"""Runs that are logged by MLflow and Weights & Biases."""

import csv
import os
import shutil
import signal
import sys
import warnings
from pathlib import Path

import keras
import pytest

from keras_sspcab.data import write_texture_folder
from keras_sspcab.report import write_report
from keras_sspcab.runs import Run, RunFolder, TrackingConfig, tracking
from keras_sspcab.runs.tracking import RunTracker, log_run
from keras_sspcab.training import TrainingInterrupted

FIXTURE = Path(__file__).parents[1] / "fixtures" / "image_run"


class Recorder:
    """A service in memory; refuses all where it is away."""

    name, title = "mlflow", "Recorder"
    is_away = False
    calls: list

    def __init__(self, settings, known):
        self.where = settings.mlflow_uri or known or "here"
        self.is_open = False

    def _call(self, *call):
        if self.is_away:
            raise ConnectionError("nobody answers")
        self.calls.append(call)

    def open(self, known, name, folder, is_training):
        self._call("open", known, is_training)
        self.is_open = True
        return known or "1"

    def describe(self):
        return "Recorder"

    def tell(self, settings):
        self._call("tell", settings)

    def measure(self, values, axis="", step=0):
        self._call("measure", values, axis, step)

    def upload(self, path, place):
        self._call("upload", os.path.basename(path), place)

    def close(self, status):
        self._call("close", status)
        self.is_open = False


@pytest.fixture
def calls(monkeypatch):
    """What a recorder in the place of MLflow was told."""
    monkeypatch.setattr(Recorder, "calls", [], raising=False)
    monkeypatch.setattr(Recorder, "is_away", False)
    monkeypatch.setitem(
        sys.modules["keras_sspcab.runs.tracking"].SERVICES, "mlflow", Recorder
    )
    return Recorder.calls


@pytest.fixture
def folder(tmp_path):
    """A finished run of an earlier version, set to be logged."""
    path = tmp_path / "runs" / "tiles"
    shutil.copytree(FIXTURE, path)
    with open(path / "config.toml", "a") as file:
        file.write('\n[tracking]\nloggers = ["mlflow"]\n')
    return RunFolder(str(path))


def of_kind(calls, kind):
    return [call[1:] for call in calls if call[0] == kind]


def add_epoch(path, **row):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    rows.append({**dict.fromkeys(rows[0], ""), **row})
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_all_of_a_folder_is_told_once_and_then_what_is_new(folder, calls):
    log_run(folder)
    assert calls[0] == ("open", None, False)
    assert calls[-1] == ("close", "FINISHED")
    (settings,) = of_kind(calls, "tell")
    assert settings[0]["model.name"] == folder.config.model.name
    *epochs, results = of_kind(calls, "measure")
    assert [step for _, axis, step in epochs] == [1, 2]
    assert {axis for _, axis, _ in epochs} == {"epoch"}
    assert all("loss" in values for values, _, _ in epochs)
    assert "test/image_auroc" in results[0]
    assert of_kind(calls, "upload") == [
        ("metrics.json", ""),
        ("model.keras", ""),
    ]

    calls.clear()
    log_run(folder)
    assert calls == [("open", "1", False), ("close", "FINISHED")]

    calls.clear()
    add_epoch(folder.file("history.csv"), epoch="3", loss="0.5")
    os.makedirs(folder.file("export", "onnx"))
    Path(folder.file("export", "onnx", "a.onnx")).touch()
    log_run(folder)
    assert calls[1:-1] == [
        ("measure", {"loss": 0.5}, "epoch", 3),
        ("upload", "a.onnx", "export/onnx"),
    ]


def test_figures_of_other_data_bear_their_name(folder, calls):
    folder.update_record(
        data={"root": "/screws"},
        evaluated={"split": "test", "root": "/cameras/second/"},
    )
    log_run(folder)
    results = of_kind(calls, "measure")[-1]
    assert "second/image_auroc" in results[0]
    assert not any(key.startswith("test/") for key in results[0])


def test_metrics_of_stages_bear_their_names(folder, calls):
    Path(folder.file("history.csv")).rename(folder.file("history-second.csv"))
    first = folder.file("history-first.csv")
    Path(first).write_text("epoch,loss,gain\n1,4.0,\n")
    os.utime(first, (0, 0))
    log_run(folder)
    measured = of_kind(calls, "measure")
    assert measured[0] == ({"first/loss": 4.0}, "first/epoch", 1)
    assert measured[1][1:] == ("second/epoch", 1)


def test_models_stay_here_where_that_is_set(folder, calls):
    with open(folder.file("config.toml"), "a") as file:
        file.write("upload_model = false\n")
    log_run(folder)
    names = [name for name, _ in of_kind(calls, "upload")]
    assert names == ["metrics.json"]


def test_passwords_in_addresses_are_not_told(folder, calls):
    path = Path(folder.file("config.toml"))
    text = path.read_text()
    where = next(x for x in text.splitlines() if x.startswith("path = "))
    path.write_text(text.replace(where, 'path = "s3://me:secret@host/a"'))
    log_run(folder)
    (settings,) = of_kind(calls, "tell")
    assert settings[0]["data.path"] == "s3://host/a"


def test_another_place_gets_a_run_of_its_own(folder, calls):
    log_run(folder)
    with open(folder.file("config.toml"), "a") as file:
        file.write('mlflow_uri = "http://elsewhere"\n')
    calls.clear()
    log_run(folder)
    assert calls[0] == ("open", None, False)
    assert len(of_kind(calls, "measure")) == 3


def test_a_finished_run_is_logged_elsewhere_without_training(folder, calls):
    path = Path(folder.file("config.toml"))
    path.write_text(path.read_text().replace('"images"', '"/images"'))
    before = os.stat(folder.file("model.keras"))
    run = Run(folder.path, {"tracking.project": "new"})
    assert run.is_up_to_date
    run.train(resume=True)
    assert len(of_kind(calls, "measure")) == 3
    assert os.stat(folder.file("model.keras")) == before
    assert RunFolder(folder.path).config.tracking.project == "new"


def test_a_finished_run_stays_finished_where_more_is_refused(folder, calls):
    path = Path(folder.file("config.toml"))
    path.write_text(path.read_text().replace('"images"', '"/nowhere"'))
    with pytest.raises(ValueError, match="nowhere"):
        Run(folder.path, {"training.epochs": 9}).train(resume=True)
    assert calls[-1] == ("close", "FINISHED")


def test_what_a_server_missed_while_away_comes_later(
    folder, calls, monkeypatch
):
    tracker = RunTracker(folder, TrackingConfig(loggers=("mlflow",)))
    Recorder.is_away = True
    with pytest.warns(UserWarning, match="does not take the run: no") as caught:
        tracker.update()
    # The command line shows those of this package.
    assert caught[0].filename == tracking.__file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tracker.update()
        assert not calls
        Recorder.is_away = False
        tracker.update()
        assert not calls  # It is not asked again at once.
        monkeypatch.setattr("time.monotonic", lambda: 1e12)
        tracker.update()
    assert len(of_kind(calls, "measure")) == 3


def test_a_broken_record_names_the_way_out(folder, calls):
    Path(folder.file("tracking.json")).write_text("{")
    with pytest.warns(UserWarning, match=r"tracking\.json is broken.*Remove"):
        log_run(folder)


# === The services themselves ===


@pytest.fixture
def services(tmp_path, monkeypatch):
    """Both services, local; the folder of MLflow's."""
    pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    store = tmp_path / "store"
    for name, value in {
        "MLFLOW_TRACKING_URI": store.as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "WANDB_DATA_DIR": str(tmp_path),
        "WANDB_CACHE_DIR": str(tmp_path),
        "WANDB_CONFIG_DIR": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    return store


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images") / "brick"
    write_texture_folder(
        root, image_size=32, num_train=8, num_test_good=3, num_test_defective=3
    )
    return root


def make_run(path, images, *loggers, **settings):
    return Run.create(
        path,
        data=images,
        model="autoencoder",
        epochs=3,
        settings={
            "data.image_size": 32,
            "data.patch_size": 0,
            "model.filters": [4, 4, 2],
            "model.smoothing": 3,
            "training.batch_size": 4,
            "tracking.loggers": loggers,
            **{f"tracking.{key}": value for key, value in settings.items()},
        },
    )


class StopIn(keras.callbacks.Callback):
    """Sends SIGTERM to this process as an epoch begins."""

    def __init__(self, epoch):
        super().__init__()
        self._epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch + 1 == self._epoch:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_is_one_run_over_all_commands(services, images, tmp_path, capfd):
    import mlflow

    path = tmp_path / "run"
    run = make_run(path, images, "mlflow", "wandb", project="tiles")
    with pytest.raises(TrainingInterrupted):
        run.train(callbacks=[StopIn(epoch=3)])

    client = mlflow.MlflowClient(services.as_uri())
    experiment = client.get_experiment_by_name("tiles").experiment_id

    def logged():
        (only,) = client.search_runs([experiment])
        return only

    assert logged().info.status == "KILLED"
    number = logged().info.run_id
    assert [m.step for m in client.get_metric_history(number, "loss")] == [1, 2]

    run = Run(path, {"training.epochs": 4})
    run.train(resume=True)
    run.evaluate()
    write_report(path)
    ended = logged()
    assert (ended.info.run_id, ended.info.status) == (number, "FINISHED")
    history = client.get_metric_history(number, "loss")
    assert [metric.step for metric in history] == [1, 2, 3, 4]
    assert "test/image_auroc" in ended.data.metrics
    assert ended.data.params["model.name"] == "autoencoder"
    assert ended.data.params["training.epochs"] == "3"
    assert ended.data.tags["changed.training.epochs"] == "4"
    files = {artifact.path for artifact in client.list_artifacts(number)}
    assert files > {"metrics.json", "report.html"}
    assert "model.keras" in files

    parts = sorted((path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(parts) == 4  # One of each command.
    assert len({part.name for part in parts}) == 1
    assert not (path / "logs").exists()
    assert capfd.readouterr() == ("", "")


def test_a_server_that_is_away_only_warns(services, folder):
    with open(folder.file("config.toml"), "a") as file:
        file.write('mlflow_uri = "http://127.0.0.1:9"\n')
    with pytest.warns(UserWarning, match="MLflow does not take the run: API"):
        log_run(folder)


@pytest.mark.parametrize(
    ("logger", "environment", "message"),
    [
        ("mlflow", {"MLFLOW_ALLOW_FILE_STORE": "false"}, "cannot log to"),
        ("wandb", {"WANDB_MODE": "online"}, "wandb login"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    services, images, tmp_path, monkeypatch, logger, environment, message
):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    run = make_run(tmp_path / "run", images, logger)
    with pytest.raises(ValueError, match=message):
        run.train()
    assert not os.path.exists(run.path)


def test_mlflows_own_callback_logs_a_layer_in_any_model(services):
    import mlflow

    from keras_sspcab import SSPCABLayer

    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, SSPCABLayer()(inputs))
    model.compile("adam", "mse")
    images = keras.ops.zeros((2, 8, 8, 3))
    with mlflow.start_run() as run:
        callback = mlflow.keras.MlflowCallback()
        model.fit(images, images, verbose=0, callbacks=[callback])
    mlflow.flush_async_logging()
    metrics = mlflow.get_run(run.info.run_id).data.metrics
    assert {"loss", "sspcab_loss"} <= metrics.keys()


@pytest.mark.parametrize("logger", ["mlflow", "wandb"])
def test_missing_packages_are_named(images, tmp_path, monkeypatch, logger):
    monkeypatch.setitem(sys.modules, logger, None)
    run = make_run(tmp_path / "run", images, logger)
    with pytest.raises(ImportError, match=r"keras-sspcab\[tracking\]"):
        run.train()
    assert not os.path.exists(run.path)
