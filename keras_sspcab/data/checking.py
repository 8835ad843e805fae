"""Decodes every image once, before training, and reports all bad ones."""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from keras_sspcab.checks import standardize_choice
from keras_sspcab.data.file_system import require_file_systems
from keras_sspcab.data.folder import ImageSample
from keras_sspcab.data.image_files import brightest_value, read_pixels
from keras_sspcab.data.masks import describe_doubts, find_doubt, read_mask
from keras_sspcab.data.parallel import parallel_map
from keras_sspcab.preprocessing import WHITE_LEVELS, Preprocessing

_Sample = TypeVar("_Sample")


@dataclasses.dataclass(frozen=True)
class FileProblem:
    """A file that cannot be used (an image, a mask, a video), and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class BadFilesError(ValueError):
    """Raised for files that cannot be used; `problems` lists all of them.

    Example:
    >>> problem = FileProblem("a.png", "the file is empty")
    >>> BadFilesError([problem], total=5, items="images").problems[0].path
    'a.png'
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
) -> tuple[_Sample, ...]:
    """Checks samples of any kind in parallel, as `check_images` does.

    Returns the good ones as `check` returns them; `items` is what they are.
    """
    on_error = standardize_choice(on_error, ("raise", "skip"), "on_error")
    checked = parallel_map(check, samples, f"Checking {items}")
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
    preprocessing: Preprocessing | None = None,
) -> tuple[ImageSample, ...]:
    """Decodes all images and masks, as training will, and reports bad files.

    A file is bad if it is missing, empty, not an image, broken or truncated, or
    brighter than the white level; a mask also if its size is not that of its
    image. A warning tells of masks that are empty though the image is
    defective, or mark something in a normal image, or most of an image. A JPEG
    with damaged bytes in the middle may decode, as gray or shifted blocks.

    Args:
        samples: Samples from `scan_image_folder`.
        on_error: `"raise"` a `BadFilesError` that lists all bad files, or
            `"skip"` them with a warning, unless nothing would be left.
        preprocessing: That of a trained model; None takes all values.

    Returns:
        The good samples, in their order; with `"raise"`, all of them.

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

    doubts: dict[ImageSample, str] = {}

    def check(sample: ImageSample) -> tuple[ImageSample, list[FileProblem]]:
        problems, doubts[sample] = _check_image(sample, preprocessing)
        return sample, problems

    good = check_samples(samples, check, "images", on_error)
    for text in describe_doubts((sample, doubts[sample]) for sample in good):
        warnings.warn(text, stacklevel=2)
    return good


def require_samples(samples: tuple[ImageSample, ...]) -> None:
    """Raises a ValueError unless there are images that can be reached."""
    if not samples:
        raise ValueError("There are no images. Received: samples with no entry")
    if others := [s for s in samples if not isinstance(s, ImageSample)]:
        raise ValueError(
            "`samples` must be of `ImageSample`, as `scan_image_folder` lists "
            f"them; of a path, `ImageSample(path)`. Received: {others[0]!r}"
        )
    require_file_systems(
        path for s in samples for path in (s.path, s.mask_path)
    )


def measure_preprocessing(
    samples: Iterable[ImageSample],
) -> Preprocessing:
    """Returns the preprocessing that fits normal training images.

    Its white level is the lowest that covers all files with 16 bits a value. A
    ValueError names an image that cannot be read.

    Example:
    >>> measure_preprocessing([])
    Preprocessing(white_level=65535, resize='bilinear', fit='stretch')
    """
    paths = [sample.path for sample in samples]
    values = parallel_map(brightest_value, paths, "Measuring images")
    # Without such files nothing is known: the full range.
    return Preprocessing.covering(max(values, default=0) or WHITE_LEVELS[-1])


def warn_if_nearly_black(path: str) -> None:
    """Warns if an image, read without a white level, is likely to need one."""
    _warn_if_dark(
        [path],
        "it is seen as nearly black. Pass "
        "`preprocessing=measure_preprocessing(samples)`, and set it as "
        "`model.preprocessing`; or `Preprocessing()` for the full range.",
    )


def warn_of_dark_files(
    paths: Sequence[str], preprocessing: Preprocessing
) -> None:
    """Warns if a model without a white level is given files that need one.

    Only the first files are looked at: they are likely to be of one camera.
    """
    if preprocessing.white_level == WHITE_LEVELS[-1]:
        _warn_if_dark(
            paths[:8],
            "the model sees it as nearly black, because it was not trained on "
            "such files. Train it on images of this camera, or bring them to "
            "8 bits",
        )


def _warn_if_dark(paths: Sequence[str], advice: str) -> None:
    """Warns of the first file of 16 bits that uses a quarter of their range."""
    for path in paths:
        try:
            brightest = brightest_value(path)
        except ValueError:
            # Whoever reads it is told.
            continue
        if 0 < brightest <= WHITE_LEVELS[-2]:
            warnings.warn(
                f"{path} has 16 bits a value, but none above {brightest}: if "
                f"its camera has fewer bits, {advice}",
                stacklevel=4,
            )
            return


def _check_image(
    sample: ImageSample, preprocessing: Preprocessing | None
) -> tuple[list[FileProblem], str]:
    """Returns faults of the files, and a doubt about the mask."""
    problems, size, doubt = [], None, ""
    try:
        # In the file's own type: a third of the memory, for many at once.
        size = read_pixels(sample.path, 3, preprocessing, None).shape[:2]
    except ValueError as error:
        problems.append(FileProblem(sample.path, str(error)))
    if sample.mask_path is not None:
        try:
            mask = read_mask(sample.mask_path)
            doubt = find_doubt(mask, sample.label)
            if size is not None and mask.shape != tuple(size):
                mask_text, text = (
                    "x".join(map(str, s)) for s in (mask.shape, size)
                )
                raise ValueError(
                    f"mask of {mask_text} pixels for the image {sample.path} "
                    f"of {text}"
                )
        except ValueError as error:
            problems.append(FileProblem(sample.mask_path, str(error)))
    return problems, doubt


def _list_problems(
    problems: Sequence[FileProblem], total: int, items: str
) -> str:
    lines = "".join(f"  {problem}\n" for problem in problems)
    return f"{len(problems)} bad files among {total} {items}:\n{lines}"
