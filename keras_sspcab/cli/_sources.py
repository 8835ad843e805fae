"""Images, videos or objects: what a host looks at decides how data are read."""

import abc
import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.runs import Config, ConfigError, RunFolder

# Samples in one step where nothing is trained: whole images take more memory
# than the patches of the training.
INFERENCE_BATCH_SIZE = 8

# From fewer samples none are held out unless the model needs it.
_LEAST_TO_SPLIT = 10


class Source(abc.ABC):
    """Where samples come from: images, or videos.

    A folder of samples has `train`, `validation` and `test`, `root`, `notes`,
    `summary()` and `with_validation(...)`; a sample has a `path`.
    """

    #: What is counted, such as "images".
    noun: ClassVar[str]

    #: Whether the model needs samples held out to calibrate on.
    needs_validation = True

    # === What a kind of data decides ===

    @abc.abstractmethod
    def list_samples(self, path: str, layout: str) -> Any:
        """Returns the folder of samples at a path."""

    @abc.abstractmethod
    def check_samples(
        self, samples: Sequence[Any], on_error: str
    ) -> tuple[Any, ...]:
        """Returns the samples that can be read; see `[data] on_error`."""

    @abc.abstractmethod
    def count(self, config: Config, folder: Any) -> int:
        """Returns how many training samples an epoch has."""

    @abc.abstractmethod
    def training_datasets(
        self, run: RunFolder, config: Config, folder: Any
    ) -> Callable[[int], Any]:
        """Returns a function from an epoch, from 0, to its dataset."""

    @abc.abstractmethod
    def scoring_dataset(self, samples: Sequence[Any], config: Config) -> Any:
        """Returns a dataset of samples in order, as they are scored."""

    def statistics_dataset(
        self, run: RunFolder, config: Config, samples: Sequence[Any]
    ) -> Any:
        """Returns the same dataset, to be read several times."""
        return self.scoring_dataset(samples, config)

    def check(self, config: Config) -> None:
        """Raises a ConfigError for settings that such data do not have."""
        return

    def describe(self, sample: Any) -> str:
        """Says what makes a training sample the same one, path first."""
        return sample.path

    # === What they share ===

    def scan(self, config: Config) -> Any:
        """Lists the data.

        Raises:
            ValueError: If the folder cannot be used.
        """
        import_backend()
        if not config.data.path:
            raise ConfigError(
                f"There is no folder of {self.noun}. Give one with --data, or "
                "as `path` in the section [data] of a configuration file"
            )
        return self.list_samples(config.data.path, config.data.layout)

    def split(self, config: Config) -> Any:
        """Lists the data, with normal samples held out to calibrate on.

        Broken samples stop it, or are left out first, as `[data] on_error`
        says.

        Raises:
            ValueError: If the data cannot be used.
        """
        self.check(config)
        folder = self.scan(config)
        checked = self.check_samples(
            (*folder.train, *folder.validation), config.data.on_error
        )
        good = {sample.path: sample for sample in checked}
        folder = dataclasses.replace(
            folder,
            **{
                part: tuple(
                    good[sample.path]
                    for sample in getattr(folder, part)
                    if sample.path in good
                )
                for part in ("train", "validation")
            },
        )
        if folder.validation or not self._holds_out(folder):
            return folder
        return folder.with_validation(
            config.data.validation_fraction, config.data.validation_seed
        )

    def _holds_out(self, folder: Any) -> bool:
        """Whether to hold out a part of the training samples.

        For a model that calibrates by itself, to have something to evaluate it
        on where there is nothing else, and samples enough.
        """
        is_enough = len(folder.train) >= _LEAST_TO_SPLIT
        return self.needs_validation or (not folder.test and is_enough)

    def samples_to_evaluate(
        self, config: Config
    ) -> tuple[tuple[Any, ...], str, str]:
        """Returns test samples, or normal ones where there are none.

        Returns:
            The samples, `"test"`, `"validation"` or, where none were held out,
            `"train"`, and the root of the folder.

        Raises:
            ValueError: If the data cannot be used.
        """
        folder = self.scan(config)
        if folder.test:
            checked = self.check_samples(folder.test, config.data.on_error)
            return checked, "test", folder.root
        folder = self.split(config)
        if folder.validation:
            return folder.validation, "validation", folder.root
        return folder.train, "train", folder.root

    def held_out(self, config: Config) -> tuple[Any, ...]:
        """Returns the normal samples that were not trained on.

        There are none where the folder holds test data alone.

        Raises:
            ValueError: If the data cannot be used.
        """
        data = config.data
        if data.on_error == "skip":
            # What is broken had no part in the choice.
            folder = self.split(config)
        else:
            folder = self.scan(config)
        if (
            not folder.validation
            and len(folder.train) > 1
            and self._holds_out(folder)
        ):
            folder = folder.with_validation(
                data.validation_fraction, data.validation_seed
            )
        if not folder.validation:
            return ()
        return self.check_samples(folder.validation, data.on_error)

    def fingerprint(self, folder: Any) -> str:
        """Names the training data, wherever the folder lies."""
        names = sorted(
            self.describe(sample).removeprefix(folder.root).strip("/")
            for sample in folder.train
        )
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        return f"{len(names)} {self.noun}, names with hash {digest[:12]}"


def source_of(config: Config, run: RunFolder | None = None) -> Source:
    """Returns the source for the host of a configuration.

    Args:
        config: The configuration.
        run: The run folder, for what is kept on disk.

    Raises:
        ValueError: If there is no such host.
    """
    import_backend()
    from keras_sspcab.applications import get_application
    from keras_sspcab.cli._data import ImageSource
    from keras_sspcab.cli._object_data import ObjectSource
    from keras_sspcab.cli._video_data import VideoSource

    host = get_application(config.model.name)
    source: Source
    if host.kind == "objects":
        source = ObjectSource(run)
    else:
        source = VideoSource() if host.kind == "video" else ImageSource()
    source.needs_validation = not host.calibrates_by_folds
    return source
