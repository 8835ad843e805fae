"""Images that were marked as wrongly judged, as data of a run."""

import dataclasses
import os
from typing import Any

from keras_sspcab.data import ImageSample, MarkedImages
from keras_sspcab.hosts import AnomalyModel
from keras_sspcab.progress import Progress
from keras_sspcab.runs.folder import RunFolder
from keras_sspcab.runs.sources import Source


def read_marks(path: str, source: Source) -> MarkedImages:
    """Returns the marked images of a folder, which must have some.

    Raises:
        ValueError: If it has none, or the model does not look at images.
    """
    if source.noun != "images":
        raise ValueError(
            "Marked images are for models that learn from images. Received: "
            f"feedback={path!r} for {source.config.model.name!r}"
        )
    marked = MarkedImages(path)
    if not marked.false_alarms and not marked.missed:
        raise ValueError(
            f"There is no marked image in {path}. `keras-sspcab mark` and the "
            "page of `keras-sspcab serve --feedback` put them there. Received: "
            f"feedback={path!r}"
        )
    return marked


def keep_marks(run: RunFolder, source: Source, path: str, resume: bool) -> None:
    """Copies marked images into a run, so that it is resumed without them.

    Those of before stay, under their last mark.

    Raises:
        ValueError: If there are none, or the run cannot take them now.
    """
    marked = read_marks(path, source)
    if not resume:
        run.check_free()
    elif not run.is_finished:
        raise ValueError(
            f"The training in {run.path} is not finished: continue it without "
            f"marked images first. Received: feedback={path!r}"
        )
    elif not source.host.calibrates_by_folds:
        before = run.saved_config.training.epochs
        if source.config.training.epochs <= before:
            raise ValueError(
                f"The run {run.path} is finished, after {before} epochs. It "
                "learns from marked images in more epochs: give a larger "
                f"number as `epochs`. Received: feedback={path!r}"
            )
    own = marks_of(run)
    for mark, images in (
        ("false_alarm", marked.false_alarms),
        ("missed", marked.missed),
    ):
        for image in images:
            own.add(image, mark, _name(image.name))


def marks_of(run: RunFolder) -> MarkedImages:
    """Returns the marked images that a run has kept."""
    return MarkedImages(run.file("marked"))


def with_marks(folder: Any, source: Source) -> Any:
    """Adds the false alarms that a run has kept to its training images."""
    if source.run is None:
        return folder
    paths = marks_of(source.run).false_alarms
    if not paths:
        return folder
    samples = tuple(ImageSample(str(path)) for path in paths)
    note = f"marked as false alarms: {len(samples)} more images to train on"
    return dataclasses.replace(
        folder,
        train=(*folder.train, *samples),
        notes=(*folder.notes, note),
    )


def tell_missed(
    model: AnomalyModel,
    source: Source,
    marked: MarkedImages,
    progress: Progress,
) -> None:
    """Says how many of the missed defects are flagged now."""
    missed = tuple(ImageSample(str(path), 1) for path in marked.missed)
    if not missed:
        return
    flags = model.outputs_on(source.scoring_dataset(missed), ["is_anomalous"])
    found = int(flags["is_anomalous"].sum())
    progress.message(
        f"Of {len(missed)} defective images marked as missed, {found} "
        f"{'is' if found == 1 else 'are'} flagged now."
    )


def _name(kept: str) -> str:
    """Returns the name that an image had before it was marked."""
    stem, _, end = kept.rpartition("-")
    return stem + os.path.splitext(end)[1] if stem else end
