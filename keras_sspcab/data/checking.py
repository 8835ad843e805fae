"""Decodes every image once, before training, and reports all bad ones."""

import dataclasses
import functools
import io
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import tensorflow as tf
from PIL import Image

from keras_sspcab.checks import standardize_choice
from keras_sspcab.data.decoding import (
    TENSORFLOW_IO_FORMATS,
    decode_image,
    image_format,
)
from keras_sspcab.data.file_system import (
    INSTALL_HINT,
    require_file_systems,
    tensorflow_io,
)
from keras_sspcab.data.folder import ImageSample
from keras_sspcab.data.parallel import parallel_map

_compiling = threading.Lock()

_Sample = TypeVar("_Sample")


@dataclasses.dataclass(frozen=True)
class FileProblem:
    """A file that cannot be used.

    Attributes:
        path: The file: an image, a mask, or a video.
        reason: What is wrong with it.

    Example:
    >>> str(FileProblem("a.png", "the file is empty"))
    'a.png: the file is empty'
    """

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class BadFilesError(ValueError):
    """Raised for files that cannot be used; `problems` lists all of them.

    Args:
        problems: A `FileProblem` for each.
        total: How many samples were checked.
        items: What they are, such as `"images"`.

    Example:
    >>> problem = FileProblem("a.png", "the file is empty")
    >>> len(BadFilesError([problem], total=5, items="images").problems)
    1
    """

    def __init__(
        self, problems: Iterable[FileProblem], total: int, items: str
    ) -> None:
        self.problems = tuple(problems)
        self.total = total
        self.items = items
        super().__init__(
            f"{_list_problems(self.problems, total, items)}Repair or remove "
            'them, or leave them out with on_error="skip".'
        )

    def __reduce__(self) -> Any:
        return type(self), (self.problems, self.total, self.items)


def check_samples(
    samples: Sequence[_Sample],
    check: Callable[[_Sample], tuple[_Sample, list[FileProblem]]],
    items: str,
    on_error: str = "raise",
    progress: bool = True,
) -> tuple[_Sample, ...]:
    """Checks samples of any kind in parallel, as `check_images` does.

    Returns the good ones as `check` returns them, perhaps completed; `items` is
    what they are, for messages.
    """
    on_error = standardize_choice(on_error, ("raise", "skip"), "on_error")
    checked = parallel_map(check, samples, f"Checking {items}", progress)
    good = tuple(sample for sample, problems in checked if not problems)
    problems = [problem for _, each in checked for problem in each]
    if problems and (on_error == "raise" or not good):
        raise BadFilesError(problems, len(samples), items)
    if problems:
        warnings.warn(
            f"{_list_problems(problems, len(samples), items)}{len(good)} "
            f"{items} remain.",
            stacklevel=3,
        )
    return good


def check_images(
    samples: Iterable[ImageSample],
    on_error: str = "raise",
    progress: bool = True,
) -> tuple[ImageSample, ...]:
    """Decodes all images and masks, as training will, and reports bad files.

    A file is bad if it is missing, empty, not an image, broken or truncated, or
    needs tensorflow-io where that is not installed; a mask also if its size is
    not that of its image. A JPEG with damaged bytes in the middle may decode,
    as gray or shifted blocks, and passes the check.

    Args:
        samples: Samples from `scan_image_folder`.
        on_error: `"raise"`, or `"skip"` to go on without the bad ones and warn
            with their names.
        progress: False hides the progress bar.

    Returns:
        The good samples, in their order; with `"raise"`, all of them.

    Raises:
        BadFilesError: With all bad files and the reasons, if there are any and
            `on_error="raise"`, or if there are no good ones.
        ValueError: If there are no samples, or an argument is out of range.

    Example:
    >>> check_images([ImageSample("missing.png")])
    Traceback (most recent call last):
    ...
    keras_sspcab.data.checking.BadFilesError: 1 bad files among 1 images:
      missing.png: the file does not exist
    Repair or remove them, or leave them out with on_error="skip".
    """
    samples = tuple(samples)
    require_samples(samples)

    def check(sample: ImageSample) -> tuple[ImageSample, list[FileProblem]]:
        return sample, _check_image(sample)

    return check_samples(samples, check, "images", on_error, progress)


def require_samples(samples: tuple[ImageSample, ...]) -> None:
    """Raises a ValueError unless there are images that can be reached."""
    if not samples:
        raise ValueError("There are no images. Received: samples with no entry")
    require_file_systems(
        path for s in samples for path in (s.path, s.mask_path)
    )


def read_pixels(path: str, channels: int) -> tf.Tensor:
    """Reads and decodes one image; a ValueError says why it cannot be used."""
    encoded = _read(path)
    kind = image_format(encoded[:12])
    if not encoded:
        raise ValueError("the file is empty")
    if kind is None:
        raise ValueError(
            "not an image that can be read (PNG, JPEG, BMP, GIF, WebP or "
            f"TIFF); it begins with {encoded[:8]!r}"
        )
    if kind in TENSORFLOW_IO_FORMATS and tensorflow_io() is None:
        raise ValueError(f"{kind} images need tensorflow-io. {INSTALL_HINT}")
    try:
        pixels = _decode(encoded, channels)
    except tf.errors.OpError as error:
        raise ValueError(
            f"broken or truncated {kind} of {len(encoded)} bytes"
        ) from error
    if kind in ("BMP", "TIFF"):
        _check_with_pillow(encoded, kind)
    return pixels


def _check_image(sample: ImageSample) -> list[FileProblem]:
    problems, size = [], None
    try:
        size = read_pixels(sample.path, 3).shape[:2]
    except ValueError as error:
        problems.append(FileProblem(sample.path, str(error)))
    if sample.mask_path is not None:
        try:
            mask_size = read_pixels(sample.mask_path, 1).shape[:2]
            if size is not None and mask_size != size:
                mask_text, text = (
                    "x".join(map(str, s)) for s in (mask_size, size)
                )
                raise ValueError(
                    f"mask of {mask_text} pixels for the image {sample.path} "
                    f"of {text}"
                )
        except ValueError as error:
            problems.append(FileProblem(sample.mask_path, str(error)))
    return problems


def _read(path: str) -> bytes:
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read()
    except tf.errors.NotFoundError:
        raise ValueError("the file does not exist") from None
    except tf.errors.OpError as error:
        if tf.io.gfile.isdir(path):
            raise ValueError("a folder, not a file") from error
        raise ValueError(f"cannot be read: {error.message}") from error


def _decode(encoded: bytes, channels: int) -> tf.Tensor:
    # Two threads must not compile at the same time.
    with _compiling:
        decode = _decoder(channels)
    return decode(tf.constant(encoded))


@functools.cache
def _decoder(channels: int) -> Any:
    """Compiles the decoder: eagerly, its branches cost more than a PNG."""
    return tf.function(
        functools.partial(decode_image, channels=channels),
        input_signature=[tf.TensorSpec((), tf.string)],
    ).get_concrete_function()


def _check_with_pillow(encoded: bytes, kind: str) -> None:
    """Raises for broken files that TensorFlow decodes without an error.

    It fills up truncated TIFF, and reads indices into a palette of BMP as gray
    values.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(encoded)) as image:
                image.load()
                mode = image.mode
    except Image.DecompressionBombError:
        return
    except Exception as error:
        # Pillow raises many types on broken files.
        raise ValueError(
            f"broken or truncated {kind} of {len(encoded)} bytes"
        ) from error
    if kind == "BMP" and mode == "P":
        raise ValueError(
            "BMP with a palette of colors, which TensorFlow reads as gray. "
            "Convert it to PNG"
        )


def _list_problems(
    problems: Sequence[FileProblem], total: int, items: str
) -> str:
    lines = "".join(f"  {problem}\n" for problem in problems)
    return f"{len(problems)} bad files among {total} {items}:\n{lines}"
