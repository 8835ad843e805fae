"""The whole road from a folder of data to scores, a report and exports."""

import contextlib
import importlib
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_sspcab.progress import Progress
from keras_sspcab.runs.config import Config, ConfigError
from keras_sspcab.runs.folder import RunFolder, default_run_path
from keras_sspcab.runs.parsing import (
    CHANGE_NO_RESULT,
    differences,
    is_free_setting,
    load_config,
)

if TYPE_CHECKING:
    from pathlib import Path

    import keras

    from keras_sspcab.hosts import AnomalyModel
    from keras_sspcab.scoring import Calibration

PathLike = str | os.PathLike[str]

# Settings that may be paths, and words that stand for none in [objects] and
# [model]. Those behind the first two are made absolute in new runs only: they
# cannot change in a run.
_PATHS = (
    "data.path",
    "inspection.roi",
    "objects.boxes",
    "objects.flow",
    "objects.masks",
    "objects.pictures",
    "objects.folder",
    "model.texture_folder",
)
_WORDS = ("", "motion", "dis", "none")


class Run(RunFolder):
    """One training and what follows from it, in a folder.

    It is silent: pass a `Progress` to be told what it does. Warnings are
    Python's.

    Attributes:
        config: The configuration, a `Config`, with the changed settings.

    Args:
        path: The folder of a run that was begun; see `create` for a new one.
        settings: Settings by `"section.key"` that are to change, such as
            `{"training.epochs": 40}`; they count when the run is trained
            further.

    Raises:
        ConfigError: If a setting cannot be used, or cannot change any more.
        ValueError: If there is no run in the folder; by all methods, if data
            cannot be used, another process works on the run, or what comes
            before has not been done.

    Example:
    >>> run = Run.create("runs/screws", data="screws", model="autoencoder")
    >>> run.config.data.patch_size, run.is_finished
    (64, False)
    >>> run.train()  # doctest: +SKIP
    >>> run.evaluate()["image_auroc"]  # doctest: +SKIP
    0.95
    """

    def __init__(
        self, path: PathLike, settings: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(os.fspath(path))
        before = self.config  # It must be there.
        if settings:
            self.config = resolve_config(self.file("config.toml"), settings)
            _check_changes(self, before, self.config)

    @classmethod
    def create(
        cls,
        path: PathLike | None = None,
        *,
        data: PathLike | None = None,
        model: str | None = None,
        epochs: int | None = None,
        config: PathLike | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> "Run":
        """Returns a new run; nothing is written before it is trained.

        Args:
            path: A folder that does not exist or is empty. Defaults to
                `runs/MODEL-DATA-NUMBER`.
            data: Folder of images or videos.
            model: A name in `keras_sspcab.hosts.available_applications()`.
                Defaults to `"multiscale_padim"`.
            epochs: Epochs in total. The default depends on the model.
            config: A TOML file of settings; the arguments are stronger.
            settings: Other settings by `"section.key"`, such as
                `{"data.image_size": 64}`.
        """
        named = {
            "data.path": data,
            "model.name": model,
            "training.epochs": epochs,
        }
        resolved = resolve_config(
            config, merge_settings(settings, named), _PATHS
        )
        if path is None:
            path = default_run_path(resolved)
        run = cls.__new__(cls)
        RunFolder.__init__(run, os.fspath(path))
        run.config = resolved
        run.check_free()
        return run

    @property
    def is_up_to_date(self) -> bool:
        """Whether the run is finished and its model has the present settings.

        Settings of the evaluation and of tracking do not count, nor others that
        change no result, but for another folder of data.
        """
        if not self.is_finished or self._changed:
            return False
        if not self.has_products:
            return True
        from keras_sspcab.runs.products import is_joined

        return is_joined(self)

    @property
    def _changed(self) -> set[str]:
        """Names of the settings that differ from the saved run and matter.

        Settings that cannot change a result are left out.
        """
        changed = differences(self.saved_config, self.config)
        return {
            name
            for name in changed
            if not name.startswith(("evaluation.", "tracking."))
            and (name == "data.path" or name not in CHANGE_NO_RESULT)
        }

    def _takes_moved_data(self) -> bool:
        """Accepts a new `data.path` that holds the images of the training.

        Returns whether that is the only change; the run then has the new
        settings. Images are compared by their names and their number.
        """
        if not self.is_finished or self._changed != {"data.path"}:
            return False
        if self.has_products:
            return False  # each has its own run
        from keras_sspcab.runs.training import take_moved_data

        with self.locked():
            return take_moved_data(self, self.config)

    @property
    def can_be_trained_further(self) -> bool:
        """Whether more epochs are possible, once it is finished.

        They are not where nothing is trained, or stages follow each other.
        """
        return os.path.exists(self.file("checkpoint.npz"))

    @property
    def model(self) -> "AnomalyModel":
        """The trained model, loaded from `model.keras`, which must exist."""
        from keras_sspcab.runs.models import load_detector

        return load_detector(self.path)

    def train(
        self,
        resume: bool = False,
        progress: Progress | None = None,
        callbacks: "Sequence[keras.callbacks.Callback]" = (),
        feedback: PathLike | None = None,
    ) -> None:
        """Trains on normal data, calibrates, and saves the model.

        Killed at any moment, it continues with `resume` as if it had never
        stopped, in another process as well. A finished run with unchanged
        settings stays as it is; it is logged where `[tracking]` says now. Of
        several products, those that are new in the data are added.

        Args:
            resume: Whether to continue a run that was begun.
            progress: Takes what there is to say.
            callbacks: Keras callbacks for the training.
            feedback: A folder of `keras_sspcab.data.MarkedImages`: false alarms
                are learned from as well, and it is told how many of the missed
                defects are found afterwards. The run keeps copies. With
                `resume`, a finished run takes them; one that is trained in
                epochs needs more of these.

        Raises:
            ValueError: If settings or data cannot be used, the run was begun
                and `resume` is False, or the training diverges.
            TrainingInterrupted: On Ctrl-C or SIGTERM; the state is saved.
        """
        from keras_sspcab.runs.training import train_run

        if resume and feedback is None and self.is_up_to_date:
            self._keep_settings()
            self._warn_of_new_data()
            return
        if resume and feedback is None and self._takes_moved_data():
            if progress is not None:
                progress.message(
                    "Nothing is trained: the data are those of the training, "
                    f"and lie in {self.config.data.path} from now on."
                )
            return
        marked = None if feedback is None else os.fspath(feedback)
        with self.locked():
            if self.has_products:
                from keras_sspcab.runs.products import train_products

                self._refuse_feedback(marked)
                train_products(
                    self, self.config, resume, progress or Progress(), callbacks
                )
            else:
                train_run(
                    self,
                    self.config,
                    resume,
                    progress,
                    callbacks,
                    feedback=marked,
                )
            # The size of the images may have been found.
            self.config = self.saved_config
        if (whole := self.joined) is not None:
            warnings.warn(
                f"The model of all products in {whole.path} is the one from "
                "before. Resume that run, which joins them again",
                stacklevel=2,
            )

    def _refuse_feedback(self, feedback: str | None) -> None:
        if feedback is not None:
            raise ValueError(
                "Feedback is about one product. Received: "
                f"feedback={feedback!r} for a run of several. Give it to "
                f"{self.file('products', 'NAME')}, and resume this run"
            )

    def _warn_of_new_data(self) -> None:
        """Warns if the training data have changed since the training."""
        from keras_sspcab.runs.sources import source_of

        if self.has_products:
            for name in self.record["products"]:
                Run(self.product(name).path)._warn_of_new_data()
            return
        # They may be gone, which is no fault of a finished run.
        with contextlib.suppress(ValueError, OSError):
            source = source_of(self.config, RunFolder(self.path))
            is_checked = self.config.data.on_error == "skip"
            folder = source.split() if is_checked else source.scan()
            if not source.is_of_training(folder):
                advice = "A new run, in another folder, learns from all of them"
                if (whole := self.joined) is not None:
                    advice = (
                        f"Remove {self.path} and resume {whole.path} to fit "
                        "this product to all of them"
                    )
                warnings.warn(
                    f"The {source.noun} in {folder.root} are not those that "
                    f"the run has learned from. {advice}",
                    stacklevel=3,
                )

    def _keep_settings(self) -> None:
        """Writes new settings of a finished run; logs it to new trackers."""
        from keras_sspcab.runs.parsing import write_config
        from keras_sspcab.runs.tracking import log_run

        before = self.saved_config
        if self.config == before:
            return
        with self.locked():
            write_config(self.file("config.toml"), self.config)
            if self.config.tracking != before.tracking:
                log_run(self)

    def import_weights(
        self,
        *paths: PathLike,
        channel_order: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Takes the weights of a published checkpoint instead of training.

        What the arrays decide, such as widths and where blocks are, goes into
        the configuration. The score is fitted to the normal data of the run,
        and the model calibrated and saved, as after a training.

        Args:
            paths: The files, as `from_published` of the host takes them: of
                DRAEM both networks, of MNAD the network and its memory.
            channel_order: `"bgr"` or `"rgb"`, the order of the colors that the
                checkpoint was trained on. Defaults to that of its authors.
            progress: Takes what there is to say.
        """
        from keras_sspcab.files import sha256_of
        from keras_sspcab.runs.models import import_model
        from keras_sspcab.runs.training import train_run

        files = [os.fspath(path) for path in paths]
        model, self.config = import_model(self.config, files, channel_order)
        with self.locked():
            self.check_free()
            train_run(self, self.config, progress=progress, imported=model)
            sums = {p: sha256_of(p) for p in files if os.path.isfile(p)}
            self.update_record(published=sums or files)

    def calibrate(
        self,
        data: PathLike | None = None,
        *,
        false_alarms: float | None = None,
        decision: str | None = None,
        restore: str | None = None,
        progress: Progress | None = None,
        feedback: PathLike | None = None,
        threshold: float | str | None = None,
        product: str | None = None,
    ) -> "Calibration":
        """Measures new thresholds for the trained model, without training.

        Figures and reports stay those of the calibration before until
        `evaluate` is called again. Former calibrations are kept in
        `calibrations.json`; exports tell which one they have.

        Args:
            data: Folder of normal images or videos that were not trained on.
                None takes those that the training calibrates on.
            false_alarms: Share of normal images that may be flagged, in [0, 1).
                None (the default) leaves it as it is set.
            decision: What flags an image: `"score"`, `"pixels"` or `"either"`;
                see `AnomalyModel.calibrate`. None (the default) leaves it.
            restore: Name of a former calibration to put back, instead of all
                others: `"training"` is that of the training.
            progress: Takes what there is to say.
            feedback: A folder of `keras_sspcab.data.MarkedImages`: false alarms
                count as normal images beside the others, and it is told how
                many of the missed defects are flagged then.
            threshold: The score to flag from, set by hand instead of all
                others, or `"f1"` for that of the best F1 of the test images or
                frames that were evaluated last.
            product: Which product, in a run of several. None takes each of
                them, which have neither `data` nor `feedback` in common.

        Returns:
            The calibration; how sure it is, says its `false_alarm_interval`.
        """
        self.require("model.keras", "keras-sspcab train")
        measured: dict[str, Any] = {
            "data": None if data is None else os.fspath(data),
            "false_alarms": false_alarms,
            "decision": decision,
            "feedback": None if feedback is None else os.fspath(feedback),
        }
        chosen = {"restore": restore, "threshold": threshold}
        given = {
            k: value
            for k, value in {**chosen, **measured}.items()
            if value is not None
        }
        if len(given) > 1 and given.keys() & chosen.keys():
            raise ValueError(
                "A threshold that is put back or set by hand has its data and "
                "settings. Received: "
                f"{', '.join(f'{k}={v!r}' for k, v in given.items())}. Give "
                "`restore` or `threshold` alone"
            )
        if (whole := self.joined) is not None:
            raise ValueError(
                f"{self.path} is of one product, and the model of all in "
                f"{whole.path} would keep its former thresholds. Calibrate "
                f"the run {whole.path}, with product={self.product_name!r}"
            )
        from keras_sspcab.runs import calibration, thresholds

        def calibrate(run: RunFolder) -> "Calibration":
            if restore is not None:
                return calibration.restore_calibration(run, restore)
            told = progress or Progress()
            if threshold is not None:
                return thresholds.set_threshold(run, threshold, told)
            return calibration.calibrate_run(run, told, **measured)

        if self.has_products:
            if product is None and (data, feedback) != (None, None):
                raise ValueError(
                    "Images are of one product. Received: "
                    f"data={measured['data']!r}, "
                    f"feedback={measured['feedback']!r} for a run of several. "
                    "Name it with `product`"
                )
            from keras_sspcab.runs.products import calibrate_products

            with self.locked():
                return calibrate_products(self, product, calibrate)
        if product is not None:
            raise ValueError(
                f"The run {self.path} is of one product. Received: "
                f"product={product!r}. Leave it out"
            )
        with self.locked():
            result = calibrate(self)
        # It is in the configuration as well.
        self.config = self.saved_config
        return result

    def evaluate(
        self,
        data: PathLike | None = None,
        on_error: str | None = None,
        settings: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        as_published: bool = False,
    ) -> dict[str, Any]:
        """Scores the test data: metrics, scores, anomaly maps.

        Args:
            data: Another folder than that of the training; it may hold test
                data alone.
            on_error: Broken images or videos: `"raise"` or `"skip"`.
            settings: How it is measured: settings of `[evaluation]` by
                `"evaluation.key"`.
            progress: Takes what there is to say.
            as_published: Whether it is measured as the published figures of the
                host were, which the metrics say then; see
                `keras_sspcab.hosts.PublishedEvaluation`.

        Returns:
            The content of `metrics.json`.
        """
        from keras_sspcab.runs.evaluation import (
            evaluate_run,
            published_settings,
        )

        self.require("model.keras", "keras-sspcab train")
        settings = dict(settings or {})
        for key, value in settings.items():
            if not key.startswith("evaluation."):
                raise ConfigError(
                    "A trained run keeps its settings but for those of "
                    f"[evaluation]. Received: {key}={value!r}"
                )
        if as_published:
            settings |= published_settings(self.config, settings)
        named = {"data.path": data, "data.on_error": on_error}
        config = resolve_config(
            self.file("config.toml"), merge_settings(settings, named)
        )
        with self.locked():
            if self.has_products:
                from keras_sspcab.runs.products import evaluate_products

                return evaluate_products(
                    self, config, progress or Progress(), as_published
                )
            return evaluate_run(self, config, progress, as_published)

    def report(self, max_images: int = 60) -> "Path":
        """Writes `report.html` about the last evaluation; returns its path."""
        # Reports stand above runs, and are made from what these have written.
        report = importlib.import_module("keras_sspcab.report")
        return report.write_report(self.path, max_images=max_images)

    def export(
        self,
        format: str,
        destination: PathLike | None = None,
        data: PathLike | None = None,
        **options: Any,
    ) -> Any:
        """Exports the model, compared with it on real data.

        Args:
            format: `"savedmodel"`, `"tflite"`, `"onnx"` or `"openvino"`.
            destination: Folder for the files. Defaults to `export` in the
                folder of the run.
            data: Folder of normal data to compare on. Defaults to the run's.
            **options: As of `keras_sspcab.export.export_run`.

        Returns:
            A result with `path` and `parity`; if the artifact differs from the
            model, an ExportMismatchError is raised.
        """
        # The library itself knows nothing of exports.
        export = importlib.import_module("keras_sspcab.export")
        return export.export_run(
            self.path,
            format,
            destination=None if destination is None else os.fspath(destination),
            data=None if data is None else os.fspath(data),
            **options,
        )

    def predict(
        self,
        paths: PathLike | Iterable[PathLike],
        heat_maps: PathLike | None = None,
        results: PathLike | None = None,
        on_error: str = "raise",
        progress: Progress | None = None,
        threshold: float | None = None,
        sensitivity: float | None = None,
        product: str | None = None,
    ) -> list[dict[str, Any]]:
        """Scores new images or videos.

        Args:
            paths: Image files or folders of them; for hosts of video, videos.
            heat_maps: Images: folder for a PNG of each with its anomaly map.
            results: Videos: folder for an annotated video, a plot and a table
                of each. Defaults to `NAME-scores` in the working folder.
            on_error: Broken images: `"raise"` or `"skip"`. They are found when
                they are reached; heat maps appear when all are scored.
            progress: Takes what there is to say.
            threshold: The score to flag from, in place of what was calibrated;
                see `Calibration.adjusted`.
            sensitivity: From 0 to 1, instead; 0.5 is as calibrated.
            product: Which of several products the images show. None recognizes
                it.

        Returns:
            A dict for each image (`path`, and `heat_map` if one was written) or
            scored frame (`video`, `frame`, `seconds`), with `anomaly_score` in
            standard deviations above normal, `is_anomalous` and `raw_score`,
            and for regions with thresholds `region_score_NAME` and
            `region_is_anomalous_NAME`, and of several products the name as
            `product`, or "unknown". An image that is given twice counts once.
        """
        from keras_sspcab.runs.prediction import (
            check_options,
            predict_images,
            predict_videos,
        )

        paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
        model = self.model
        check_options(
            model,
            heat_maps=heat_maps,
            results=results,
            on_error=on_error,
            product=product,
        )
        model.calibration = model.calibration.adjusted(threshold, sensitivity)
        if model.kind == "image":
            return predict_images(
                model, paths, heat_maps, on_error, progress, product
            )
        predictions = predict_videos(
            model, paths, results, None, self.config, progress
        )
        return [row for one in predictions for row in one.rows]


def merge_settings(
    settings: Mapping[str, Any] | None, named: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns settings, and those named that are not None instead."""
    given = {
        key: os.fspath(value) if isinstance(value, os.PathLike) else value
        for key, value in named.items()
        if value is not None
    }
    return {**(settings or {}), **given}


def resolve_config(
    path: PathLike | None,
    settings: Mapping[str, Any],
    names: Sequence[str] = _PATHS[:2],
) -> Config:
    """Reads a configuration and makes paths of the data absolute.

    A relative path counts from the working folder, not from the file. `names`
    are those of the settings that may be one.
    """
    file = None if path is None else os.fspath(path)
    config = load_config(file, settings)
    values = config.to_dict()
    relative = {}
    for name in names:
        section, _, key = name.partition(".")
        given = values[section].get(key) or ""
        words = _WORDS if section in ("objects", "model") else ("",)
        if given in words or "://" in given or os.path.isabs(given):
            continue
        relative[name] = os.path.abspath(os.path.expanduser(given))
    return load_config(file, {**settings, **relative}) if relative else config


def _check_changes(run: RunFolder, before: Config, after: Config) -> None:
    """Raises a ConfigError for settings that cannot change in a run."""
    for name, (old, new) in differences(before, after).items():
        if not is_free_setting(name):
            raise ConfigError(
                f"The run {run.path} was started with {name}={old!r}. "
                f"Received: {new!r}. Leave it out, or start a new run"
            )
    epochs = before.training.epochs
    if run.is_finished and after.training.epochs < epochs:
        raise ConfigError(
            f"The run {run.path} has {epochs} epochs behind it. Received: "
            f"{after.training.epochs} epochs. Choose more, or start a new run"
        )
