"""A picture of a few results, for a README or a paper."""

import os
from pathlib import Path

import matplotlib.cm
import matplotlib.colors
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.report import pictures
from keras_sspcab.report.content import read_evaluated_run
from keras_sspcab.report.heat import COLOR_TABLE, HeatScale, overlay
from keras_sspcab.runs import files
from keras_sspcab.runs.outputs import ImageScore

_SIDE = 256


def save_examples_figure(
    run_folder: str | os.PathLike[str],
    path: str | os.PathLike[str],
    count: int = 4,
) -> Path:
    """Writes a PNG of defects and one normal image with their heat maps.

    Nothing is hand-picked: each kind of defect, in alphabetical order, is shown
    by its image of median score among those with a mask, and the normal image
    is that of median score, too. If there are fewer kinds than `count`, the
    next images around the median follow. The colors are those of the report.

    Args:
        run_folder: Folder of a run, after `keras-sspcab evaluate`.
        path: The PNG to write.
        count: How many defects, at least 1.

    Returns:
        The path of the picture.

    Raises:
        ValueError: If the run has no defective image with mask and map, if one
            of the images cannot be read, or if a file of the run is missing.

    Example:
        >>> save_examples_figure("runs/screws", "a.png")  # doctest: +SKIP
        PosixPath('a.png')
    """
    if count < 1:
        raise ValueError(
            f"The `count` argument must be positive. Received: count={count}"
        )
    run = read_evaluated_run(run_folder)
    if run.is_video:
        raise ValueError(
            f"{run.path} is a run of videos, not of images. Look at it with "
            f"`keras-sspcab report {run.path}`"
        )
    usable = [image for image in run.images if image.map_path is not None]
    chosen = choose_images(
        [p for p in usable if p.label and p.mask_path], count
    )
    chosen += _by_typicality([p for p in usable if p.label == 0])[:1]
    if not any(p.label for p in chosen):
        raise ValueError(
            f"{run.path} has no defective image with both a mask and an "
            "anomaly map in predictions/scores.csv. Evaluate it on images "
            "with ground truth: `keras-sspcab evaluate`"
        )
    scale = HeatScale.of(
        run.pixel_threshold, (image.load_map() for image in run.images)
    )
    figure = Figure(
        figsize=(1.6 * len(chosen) + 1.5, 5.1), dpi=160, layout="constrained"
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(3, len(chosen), squeeze=False)
    for column, prediction in zip(grid.T, chosen, strict=True):
        for axes, pixels in zip(
            column, _tiles(prediction, scale, run.preprocessing), strict=True
        ):
            axes.imshow(pixels, vmin=0, vmax=255)
            axes.set(xticks=[], yticks=[])
        kind = prediction.defect if prediction.label else "good"
        column[0].set_title(kind.replace("_", " "), fontsize=9)
        column[2].set_xlabel(f"score {prediction.score:.1f}", fontsize=9)
    for axes, name in zip(
        grid[:, 0], ("image", "heat map", "ground truth"), strict=True
    ):
        axes.set_ylabel(name, fontsize=9)
    bar = figure.colorbar(
        matplotlib.cm.ScalarMappable(
            matplotlib.colors.Normalize(0, scale.limit),
            matplotlib.colors.ListedColormap(_on_gray()),
        ),
        ax=grid,
        shrink=0.6,
        extend="max",
        ticks=[0, scale.limit / 2, scale.limit],
        format="%.1f",
    )
    bar.set_label("standard deviations above normal", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    with files.replacing(os.fspath(path)) as temporary:
        # Without a date or a version, equal figures are equal files.
        is_png = str(path).lower().endswith(".png")
        figure.savefig(
            temporary, metadata={"Software": None} if is_png else None
        )
    return Path(path)


def choose_images(defective: list[ImageScore], count: int) -> list[ImageScore]:
    """Takes from each kind in turn, the most typical first."""
    kinds = sorted({p.defect for p in defective})
    queues = {
        kind: _by_typicality([p for p in defective if p.defect == kind])
        for kind in kinds
    }
    chosen: list[ImageScore] = []
    while len(chosen) < count and any(queues.values()):
        for queue in queues.values():
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0))
    return sorted(chosen, key=lambda p: p.defect)


def _by_typicality(predictions: list[ImageScore]) -> list[ImageScore]:
    """Sorts by the distance in rank from the median score."""
    ranked = sorted(predictions, key=lambda p: p.score)
    middle = (len(ranked) - 1) // 2
    order = sorted(range(len(ranked)), key=lambda i: abs(i - middle))
    return [ranked[i] for i in order]


def _tiles(
    prediction: ImageScore, scale: HeatScale, preprocessing: Preprocessing
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    photo = pictures.load_photo(prediction.path, _SIDE, preprocessing)
    anomaly_map = prediction.load_map()
    if photo is None or anomaly_map is None:
        raise ValueError(
            f"{prediction.path} cannot be read. Has the image been moved since "
            "the evaluation?"
        )
    image = np.asarray(photo)
    size = (photo.height, photo.width)
    mask = np.zeros(size, bool)
    if prediction.label:
        truth = pictures.load_mask(prediction.mask_path or "", size)
        if truth is None:
            raise ValueError(
                f"{prediction.mask_path} cannot be read. Has the mask been "
                "moved since the evaluation?"
            )
        mask = truth
    white = np.repeat(mask[..., np.newaxis], 3, -1).astype("uint8") * 255
    return image, overlay(image, anomaly_map, scale.limit), white


def _on_gray() -> np.ndarray:
    """Returns the colors as they look on mid-gray, RGB in [0, 1]."""
    strength = np.arange(len(COLOR_TABLE), dtype="float32")[np.newaxis]
    gray = np.full((1, len(COLOR_TABLE)), 128, "uint8")
    return overlay(gray, strength, len(COLOR_TABLE) - 1)[0] / 255
