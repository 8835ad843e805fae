"""Samples of images or videos in splits: train, validation and test."""

import collections
import dataclasses
import hashlib
import numbers
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from keras_sspcab.data.file_system import enumerate_names

#: Name of the "defect type" of normal images.
GOOD = "good"

_Sample = TypeVar("_Sample")
_Folder = TypeVar("_Folder", bound="SampleFolder[Any]")


@dataclasses.dataclass(frozen=True)
class SampleFolder(Generic[_Sample]):
    """The samples below a folder, by split; the base of all such folders.

    Attributes:
        root: The folder.
        layout: How it is laid out, such as `"plain"`.
        train: Normal samples to train on.
        validation: Normal samples held out of training, to calibrate with.
        test: Normal and abnormal samples to evaluate on; may be empty.
        notes: Remarks of the scan, such as files that were left out.
    """

    root: str
    layout: str
    train: tuple[_Sample, ...]
    validation: tuple[_Sample, ...] = ()
    test: tuple[_Sample, ...] = ()
    notes: tuple[str, ...] = ()

    #: What the samples are, for messages.
    items: ClassVar[str] = "samples"
    #: What to do if there are too few to hold some out, for messages.
    advice: ClassVar[str] = ""

    @property
    def splits(self) -> dict[str, tuple[_Sample, ...]]:
        """The samples by name of the split."""
        return {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
        }

    def with_validation(
        self: _Folder, fraction: float = 0.1, seed: int = 0
    ) -> _Folder:
        """Holds normal samples out of training, in a changed copy.

        Which ones follows from the seed and their names below `root` alone, so
        that the split stays the same on another machine, and changes little
        when samples are added. It is an error if there is a validation split
        already, or less than two training samples.

        Args:
            fraction: Share of the training samples, above 0 and below 1. At
                least one is held out and at least one stays.
            seed: Another seed draws another split.
        """
        is_number = isinstance(fraction, numbers.Real)
        if not is_number or not 0.0 < fraction < 1.0:
            raise ValueError(
                "The `fraction` argument must lie between 0 and 1. "
                f"Received: fraction={fraction!r}"
            )
        if self.validation:
            raise ValueError(
                "There is a validation split already, of "
                f"{len(self.validation)} {self.items}. "
                f"Received: root={self.root!r}"
            )
        total = len(self.train)
        if total < 2:
            raise ValueError(
                f"Holding {self.items} out takes at least two training "
                f"{self.items}. Received: root={self.root!r} with {total}"
                f"{self.advice}"
            )

        def rank(sample: Any) -> str:
            name = f"{seed}:{self.name_of(sample)}"
            return hashlib.sha256(name.encode()).hexdigest()

        count = min(max(round(fraction * total), 1), total - 1)
        held_out = set(sorted(self.train, key=rank)[:count])
        note = (
            f"validation: {count} of {total} normal {self.items} held out of "
            f"train (fraction {fraction}, seed {seed})"
        )
        return dataclasses.replace(
            self,
            train=tuple(s for s in self.train if s not in held_out),
            validation=tuple(s for s in self.train if s in held_out),
            notes=(*self.notes, note),
        )

    def summary(self) -> str:
        """Returns a table of counts by split, and the notes."""
        lines = [
            f"{self.root} (layout: {self.layout})",
            *_format_table(self.table()),
            *(f"  {remark}" for remark in (*self.remarks(), *self.notes)),
        ]
        return "\n".join(lines)

    def name_of(self, sample: Any) -> str:
        """Returns the name of a sample, the same on every machine."""
        raise NotImplementedError

    def table(self) -> list[tuple[str | int, ...]]:
        """Returns the rows of the summary: a header, then counts by split."""
        raise NotImplementedError

    def remarks(self) -> list[str]:
        """Returns lines of the summary that stand between table and notes."""
        return []


def _format_table(rows: Sequence[Sequence[str | int]]) -> list[str]:
    """Aligns columns, counts to the right: 0 as a dash, unknown ones as "?"."""
    columns = []
    for column in zip(*rows, strict=True):
        texts = [str(cell or "-") for cell in column]
        width = max(map(len, texts))
        is_count = any(isinstance(c, int) or c == "?" for c in column)
        align = str.rjust if is_count else str.ljust
        columns.append([align(text, width) for text in texts])
    return ["  " + "  ".join(row) for row in zip(*columns, strict=True)]


@dataclasses.dataclass(frozen=True)
class ImageSample:
    """One image file and what is known about it.

    Attributes:
        path: Path or URL of the image.
        label: 0 for normal, 1 for defective.
        defect: Type of the defect; `"good"` for normal images.
        mask_path: Path of the mask of the defect, or of a folder of masks,
            which are merged; None without a mask.

    Example:
    >>> ImageSample("test/crack/0.png", label=1, defect="crack").mask_path
    """

    path: str
    label: int = 0
    defect: str = GOOD
    mask_path: str | None = None

    def __post_init__(self) -> None:
        if self.label not in (0, 1):
            raise ValueError(
                "The label of an image must be 0 (normal) or 1 (defective). "
                f"Received: label={self.label!r} for {self.path!r}"
            )


@dataclasses.dataclass(frozen=True)
class ImageFolder(SampleFolder[ImageSample]):
    """The images below a folder, by split, as `scan_image_folder` returns it.

    Example:
    >>> train = tuple(ImageSample(f"screws/{i}.png") for i in range(20))
    >>> len(ImageFolder("screws", "plain", train).with_validation(0.1).train)
    18
    """

    items = "images"
    advice = (
        ". Add images, or take a model that holds none out: multiscale_padim, "
        "padim or patchcore"
    )

    def name_of(self, sample: ImageSample) -> str:
        """Returns the path of an image below the root."""
        name = sample.path.removeprefix(self.root).replace("\\", "/")
        return name.strip("/")

    def table(self) -> list[tuple[str | int, ...]]:
        """Returns counts of images and masks by split and type of defect."""
        rows: list[tuple[str | int, ...]] = []
        for split, samples in self.splits.items():
            images = collections.Counter(s.defect for s in samples)
            masks = collections.Counter(
                s.defect for s in samples if s.mask_path
            )
            # Normal images first, then the types of defects by name.
            for defect in sorted(images, key=lambda d: (d != GOOD, d)):
                rows.append((split, defect, images[defect], masks[defect]))
        total = [sum(int(row[column]) for row in rows) for column in (2, 3)]
        header = ("split", "defect", "images", "masks")
        return [header, *rows, ("total", " ", *total)]

    def remarks(self) -> list[str]:
        """Names defective images that have no mask."""
        missing = [s.path for s in self.test if s.label and not s.mask_path]
        if not missing:
            return []
        return [
            f"defective images without a mask: {len(missing)} "
            f"({enumerate_names(missing)})"
        ]
