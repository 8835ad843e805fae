"""Images or videos: what a host looks at decides how data are read."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from keras_sspcab.cli._data import ImageSource
from keras_sspcab.cli._video_data import VideoSource
from keras_sspcab.runs import Config


class Source(Protocol):
    """Where training and held-out samples come from."""

    #: What is counted, such as "images".
    noun: str

    def check(self, config: Config) -> None:
        """Raises a ConfigError for settings that such data do not have."""

    def split(self, config: Config) -> Any:
        """Lists the data, with normal samples held out to calibrate on.

        Broken samples stop it, or are left out first, as `[data] on_error`
        says.

        Returns:
            A folder with `train`, `validation`, `test`, `root`, `notes` and
            `summary()`.

        Raises:
            ValueError: If the data cannot be used.
        """

    def count(self, config: Config, folder: Any) -> int:
        """Returns how many training samples an epoch has."""

    def training_datasets(
        self, run: Any, config: Config, folder: Any
    ) -> Callable[[int], Any]:
        """Returns a function from an epoch, from 0, to its dataset."""

    def scoring_dataset(self, samples: Sequence[Any], config: Config) -> Any:
        """Returns a dataset of samples in order, as they are scored."""

    def fingerprint(self, folder: Any) -> str:
        """Names the training data, wherever the folder lies."""


def source_of(config: Config) -> Source:
    """Returns the source for the host of a configuration.

    Raises:
        ValueError: If there is no such host.
    """
    from keras_sspcab.cli._backend import import_backend

    import_backend()
    from keras_sspcab.applications import get_application

    sources: dict[str, Source] = {
        "image": ImageSource(),
        "video": VideoSource(),
    }
    return sources[get_application(config.model.name).kind]
