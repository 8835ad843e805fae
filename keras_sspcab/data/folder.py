"""What a folder of images holds: samples with labels, in splits."""

import collections
import dataclasses

from keras_sspcab.data._file_system import enumerate_names
from keras_sspcab.data._hold_out import hold_out

#: Name of the "defect type" of normal images.
GOOD = "good"


@dataclasses.dataclass(frozen=True)
class ImageSample:
    """One image file and what is known about it.

    Attributes:
        path: Path or URL of the image.
        label: 0 for normal, 1 for defective.
        defect: Type of the defect; `"good"` for normal images.
        mask_path: Path of the mask of the defect, or None.
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
class ImageFolder:
    """The images below a folder, by split; see `scan_image_folder`.

    Attributes:
        root: The folder.
        layout: `"mvtec"` or `"plain"`.
        train: Normal images to train on.
        validation: Normal images held out of training, to calibrate with.
        test: Normal and defective images to evaluate on; may be empty.
        notes: What else is worth knowing, such as files that were left out.
    """

    root: str
    layout: str
    train: tuple[ImageSample, ...]
    validation: tuple[ImageSample, ...] = ()
    test: tuple[ImageSample, ...] = ()
    notes: tuple[str, ...] = ()

    def with_validation(
        self, fraction: float = 0.1, seed: int = 0
    ) -> "ImageFolder":
        """Holds normal images out of training; the summary says so.

        Which ones follows from the seed and the paths below `root` alone, so
        that the split stays the same on another machine, and changes little
        when images are added.

        Args:
            fraction: Share of the training images, above 0 and below 1. At
                least one image is held out and at least one stays.
            seed: Another seed draws another split.

        Returns:
            A new `ImageFolder`; this one is not changed.

        Raises:
            ValueError: If there is a validation split already, there are less
                than two training images, or the fraction is out of range.
        """

        def name_of(sample: ImageSample) -> str:
            name = sample.path.removeprefix(self.root).replace("\\", "/")
            return name.strip("/")

        return hold_out(self, name_of, fraction, seed, "images")

    def summary(self) -> str:
        """Returns a table of counts by split and defect type, and the notes."""
        rows = [("split", "defect", "images", "masks")]
        splits = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
        }
        for split, samples in splits.items():
            images = collections.Counter(s.defect for s in samples)
            masks = collections.Counter(
                s.defect for s in samples if s.mask_path is not None
            )
            # Normal images first, then the defect types by name.
            for defect in sorted(images, key=lambda d: (d != GOOD, d)):
                has_masks = str(masks[defect]) if masks[defect] else "-"
                rows.append((split, defect, str(images[defect]), has_masks))
        total = sum(len(samples) for samples in splits.values())
        with_mask = sum(
            sample.mask_path is not None
            for samples in splits.values()
            for sample in samples
        )
        rows.append(
            ("total", "", str(total), str(with_mask) if with_mask else "-")
        )

        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"{self.root} (layout: {self.layout})"]
        for split, defect, images_text, masks_text in rows:
            lines.append(
                f"  {split:<{widths[0]}}  {defect:<{widths[1]}}  "
                f"{images_text:>{widths[2]}}  {masks_text:>{widths[3]}}"
            )
        missing = [s.path for s in self.test if s.label and not s.mask_path]
        if missing:
            lines.append(
                f"  defective images without a mask: {len(missing)} "
                f"({enumerate_names(missing)})"
            )
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)
