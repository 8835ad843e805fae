"""What images, videos and objects have in common as the data of a run."""

import abc
import contextlib
import dataclasses
import hashlib
import operator
import os
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from keras_sspcab.data.file_system import is_folder, list_files, scheme_of
from keras_sspcab.data.scanning import IMAGE_EXTENSIONS
from keras_sspcab.data.video.files import VIDEO_EXTENSIONS
from keras_sspcab.hosts import AnomalyModel, available_applications
from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.runs.config import Config, ConfigError, ObjectsConfig
from keras_sspcab.runs.folder import RunFolder
from keras_sspcab.variants import ImageVariants

# Places of files in the layouts that are for one kind alone.
_IMAGES = re.compile(r"(train|validation|test)/good/[^/]+", re.IGNORECASE)
_VIDEOS = re.compile(
    r"(training|testing)/(frames|videos)/.+|(training|testing)_videos/.+|"
    r"(Train/Train|Test/Test)\d+/.+"
)


def find_kind(root: str) -> tuple[str, str]:
    """Returns what a folder holds, and a file that says so.

    That is "images", "videos", "folders of images", which may be frames of
    videos, or nothing where it may be either. Remote folders, which take long
    to list, are not looked at.
    """
    if scheme_of(root) or not is_folder(root):
        return "", ""
    files = list_files(root)
    images = [f for f in files if f.lower().endswith(IMAGE_EXTENSIONS)]
    videos = [f for f in files if f.lower().endswith(VIDEO_EXTENSIONS)]
    if images:
        videos = [f for f in videos if f.startswith("train/")]
    videos += filter(_VIDEOS.fullmatch, images)
    parts = [f for f in images if re.fullmatch(r"train/[^/]+/.+", f)]
    if any(file.startswith("train/good/") for file in parts):
        # Below `good` may lie cameras or days as well as videos.
        parts = []
    for kind, found in (
        ("images", [*filter(_IMAGES.fullmatch, images)]),
        ("videos", videos),
        ("folders of images", parts),
    ):
        if found:
            return kind, found[0]
    return "", ""


# Fewer say nothing: none are held out unless the model needs it.
_LEAST_HELD_OUT = 5


class Source(abc.ABC):
    """The data of a run, as its host looks at them.

    A folder of samples has `train`, `validation` and `test`, `root`, `notes`,
    `summary()` and `with_validation(...)`; a sample has a `path`. All methods
    raise a ValueError where the data cannot be used. What is kept on disk lies
    in the run folder, if there is one.
    """

    #: What the samples are called, such as "images".
    noun: ClassVar[str]

    def __init__(
        self,
        config: Config,
        host: type[AnomalyModel],
        run: RunFolder | None = None,
    ) -> None:
        self.config = config
        self.data = config.data
        self.host: Any = host
        self.run = run
        # How a trained model reads files takes its place.
        self.preprocessing = Preprocessing(
            config.data.white_level or Preprocessing.white_level,
            config.data.resize,
            config.data.fit,
        )

    # === What a kind of data decides ===

    @abc.abstractmethod
    def list_samples(
        self, path: str, layout: str, require_train: bool = True
    ) -> Any:
        """Returns the folder of samples at a path.

        One of test samples alone is an error if normal ones are required.
        """

    @abc.abstractmethod
    def check_samples(
        self, samples: Sequence[Any], on_error: str
    ) -> tuple[Any, ...]:
        """Returns the samples that can be read; see `[data] on_error`."""

    @abc.abstractmethod
    def epoch_size(self, folder: Any) -> int:
        """Returns how many training samples an epoch has."""

    @abc.abstractmethod
    def training_datasets(
        self, folder: Any, with_pseudo_abnormal: bool = False
    ) -> Callable[[int], Any]:
        """Returns a function from the number of an epoch to its dataset."""

    @abc.abstractmethod
    def scoring_dataset(
        self, samples: Sequence[Any], is_reread: bool = False
    ) -> Any:
        """Returns a dataset of samples in order, as they are scored."""

    @abc.abstractmethod
    def measure_white(self, samples: Sequence[Any]) -> Preprocessing:
        """Returns the white level that fits samples with 16 bits."""

    def check(self) -> None:
        """Raises a ConfigError for settings that such data do not have."""
        self.check_evaluation()

    @abc.abstractmethod
    def check_evaluation(self) -> None:
        """The same for [evaluation] alone."""

    def warn_of_ratio(self, folder: Any) -> None:
        """Warns if stretching makes samples much wider or taller."""
        return

    def variants(self, folder: Any) -> ImageVariants:
        """Returns what leaves the normal images of a folder normal."""
        return ImageVariants()

    def is_default(self, key: str) -> bool:
        """Whether a setting has the default value of the host."""
        section, name = key.split(".")
        value_in = operator.attrgetter(key)
        own = self.host.default_settings.get(section, {})
        default = own.get(name, value_in(Config()))
        return bool(value_in(self.config) == default)

    def changed_objects(self) -> list[str]:
        """Returns the names of [objects] settings that are not the defaults.

        All but the folder, which comparisons share among their runs.
        """
        keys = sorted(ObjectsConfig.model_fields.keys() - {"folder"})
        names = [f"objects.{key}" for key in keys]
        return [name for name in names if not self.is_default(name)]

    def refuse(self, key: str, purpose: str) -> None:
        """Raises a ConfigError if a setting is not the host's default."""
        if not self.is_default(key):
            value = operator.attrgetter(key)(self.config)
            raise ConfigError(
                f"`{key}` is for {purpose}. Received: {key}={value!r} for the "
                f"model {self.config.model.name!r}. Leave it out"
            )

    def identity(self, sample: Any) -> str:
        """Returns what makes a training sample the same one, path first."""
        return sample.path

    # === What they share ===

    def scan(self, path: str = "") -> Any:
        """Lists the training data or, given a path, data to evaluate on.

        The latter may be test samples alone. The layout "plain" says that what
        is trained on is normal. What a folder with other data says by its names
        is still heard.
        """
        is_to_evaluate = bool(path)
        path = path or self.data.path
        if not path:
            raise ConfigError(
                f"There is no folder of {self.noun}: `data.path` is not given"
            )
        if self.data.layout == "auto":
            self._refuse_other_kind(path)
        layout, require_train = self.data.layout, not is_to_evaluate
        folder = self.list_samples(path, layout, require_train)
        root = self._training_record.get("root", folder.root)
        if (
            is_to_evaluate
            and layout == "plain"
            and folder.root != root
            and not self.is_of_training(folder)
        ):
            return self.list_samples(path, "auto", require_train)
        return folder

    def _refuse_other_kind(self, path: str) -> None:
        """Raises a ConfigError if a folder is one for other models."""
        found, example = find_kind(path)
        is_of_images = self.noun == "images"
        if found == "" or (found == "images") == is_of_images:
            return
        if found == "folders of images" and not is_of_images:
            return
        other = "videos" if is_of_images else "images"
        models = (
            name
            for name, host in available_applications().items()
            if (host.kind == "image") != is_of_images
        )
        advice = (
            ""
            if found != "folders of images"
            else ("Normal images belong into train/good. If these are frames: ")
        )
        raise ConfigError(
            f"The folder {path} holds {found}, such as {example}, and the "
            f"model {self.config.model.name!r} learns from {self.noun}. "
            f"{advice}Choose one for {other} as `model.name`: "
            f"{', '.join(sorted(models))}. Or say by `data.layout` how its "
            f"{self.noun} lie"
        )

    def split(self, folder: Any = None) -> Any:
        """Lists the data, with normal samples held out to calibrate on.

        Broken samples stop it, or are left out first, as `[data] on_error`
        says. A folder that has been listed is not listed again.
        """
        self.check()
        folder = self.scan() if folder is None else folder
        checked = self.check_samples(
            (*folder.train, *folder.validation), self.data.on_error
        )
        good = {sample.path: sample for sample in checked}
        parts = {
            name: tuple(
                good[s.path] for s in getattr(folder, name) if s.path in good
            )
            for name in ("train", "validation")
        }
        return self._with_validation(dataclasses.replace(folder, **parts))

    def _with_validation(self, folder: Any) -> Any:
        """Holds a part of the training samples out, where that is useful.

        Not for a model that calibrates by itself, unless there is nothing else
        to evaluate it on, and samples enough. What has been trained on decides:
        whether there are test samples may have changed since.
        """
        fraction = self.data.validation_fraction
        by_itself = self.host.calibrates_by_folds
        is_enough = round(len(folder.train) * fraction) >= _LEAST_HELD_OUT
        if folder.validation or (
            by_itself and (not is_enough or self._is_trained_on(folder))
        ):
            return folder
        held_out = folder.with_validation(fraction, self.data.validation_seed)
        if by_itself and folder.test and not self._is_trained_on(held_out):
            return folder
        return held_out

    def _is_trained_on(self, folder: Any) -> bool:
        """Whether the run has noted these training samples as its own."""
        known = self._training_record.get(f"training_{self.noun}")
        return known == self.fingerprint(folder)

    def samples_to_evaluate(self) -> tuple[tuple[Any, ...], str, str]:
        """Returns test samples, or normal ones where there are none.

        Also which they are, and the root of the folder: `"test"`; `"normal"`,
        all of another folder than that of the training; `"validation"`, those
        held out of it; or `"train"`, where there are none.
        """
        folder = self.scan(self.data.path)
        if folder.test:
            checked = self.check_samples(folder.test, self.data.on_error)
            return checked, "test", folder.root
        folder = self.split(folder)
        root = self._training_record.get("root")
        if root and not self.is_of_training(folder):
            if folder.root != root:
                normal = (*folder.train, *folder.validation)
                normal = tuple(sorted(normal, key=lambda one: one.path))
                if trained := self.trained_on(normal):
                    warnings.warn(
                        f"{len(trained)} of the {len(normal)} normal "
                        f"{self.noun} in {folder.root} lie in the data of the "
                        "training: what was trained on scores too low",
                        stacklevel=2,
                    )
                return normal, "normal", folder.root
            warnings.warn(
                f"The normal {self.noun} in {folder.root} have changed since "
                "the training: it may have seen some of those that are scored",
                stacklevel=2,
            )
        if folder.validation:
            return folder.validation, "validation", folder.root
        return folder.train, "train", folder.root

    @property
    def _training_record(self) -> dict[str, Any]:
        """What the run has noted about its training data."""
        return {} if self.run is None else self.run.record.get("data", {})

    def is_of_training(self, folder: Any) -> bool:
        """Whether a folder has the run's training data, even if it has moved.

        By the names of the files.
        """
        parts = [folder]
        if len(folder.train) > 1:
            parts.append(self._with_validation(folder))
        return any(map(self._is_trained_on, parts))

    def trained_on(self, samples: Sequence[Any]) -> list[Any]:
        """Returns the samples that lie in the training data of the run."""
        path = "" if self.run is None else self.run.config.data.path
        return self.lying_in(path, samples, self.data.layout, ("train",))

    def lying_in(
        self,
        path: str,
        samples: Sequence[Any],
        layout: str = "auto",
        parts: Sequence[str] = ("train", "validation"),
    ) -> list[Any]:
        """Returns the samples that are in some parts of a folder."""
        known: set[str] = set()
        # It may be gone.
        with contextlib.suppress(ValueError, OSError):
            splits = self.list_samples(path, layout).splits
            known = {os.path.realpath(s.path) for p in parts for s in splits[p]}
        return [one for one in samples if os.path.realpath(one.path) in known]

    def held_out(self) -> tuple[Any, ...]:
        """Returns the normal samples that were not trained on.

        There are none where the folder holds test data alone.
        """
        folder = self.scan(self.data.path)
        if not folder.train:
            return ()
        if self.data.on_error == "skip":
            # What is broken had no part in the choice.
            folder = self.split(folder)
        elif len(folder.train) > 1:
            folder = self._with_validation(folder)
        if not folder.validation:
            return ()
        return self.check_samples(folder.validation, self.data.on_error)

    def measure_preprocessing(self, folder: Any) -> Preprocessing:
        """Returns how the normal files of a folder become inputs."""
        if self.data.white_level:
            return self.preprocessing
        measured = self.measure_white((*folder.train, *folder.validation))
        return dataclasses.replace(
            self.preprocessing, white_level=measured.white_level
        )

    def fingerprint(self, folder: Any) -> str:
        """Names the training data, wherever the folder lies.

        Without images that were marked: a training may go on with them.
        """
        names = sorted(
            self.identity(sample).removeprefix(folder.root).strip("/")
            for sample in folder.train
            if self.run is None
            or not sample.path.startswith(self.run.file("marked"))
        )
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        return f"{len(names)} {self.noun}, names with hash {digest[:12]}"
