"""Metrics of one score per pixel, over all images of a test set."""

from collections.abc import Iterable
from typing import Any

from keras_sspcab.metrics.pixel_scores import PixelScores


def _gather(masks: Iterable[Any], maps: Iterable[Any]) -> PixelScores:
    pixels = PixelScores()
    masks, maps = iter(masks), iter(maps)
    end = object()
    while True:
        mask, anomaly_map = next(masks, end), next(maps, end)
        if mask is end and anomaly_map is end:
            return pixels
        if mask is end or anomaly_map is end:
            raise ValueError(
                "The `masks` and `maps` arguments must hold one item an "
                "image each. Received: "
                f"{'masks' if mask is end else 'maps'} that ends after "
                f"{pixels.num_images} images, before the other"
            )
        pixels.add(mask, anomaly_map)


def pixel_auroc(masks: Iterable[Any], maps: Iterable[Any]) -> float:
    """Area under the ROC of all pixels of all images.

    Args:
        masks: Array `(n, height, width)` or iterable of arrays `(height,
            width)`, 1 or True where anomalous. None stands for an image
            without a defect. Images may differ in size.
        maps: Anomaly maps of the same shapes, larger is more anomalous.

    Returns:
        A number in [0, 1]; 0.5 is chance.

    Raises:
        ValueError: If there is no normal or no anomalous pixel, or if the
            arguments are not as described.
    """
    return _gather(masks, maps).auroc()


def pixel_average_precision(masks: Iterable[Any], maps: Iterable[Any]) -> float:
    """Average precision of all pixels of all images.

    Args:
        masks: As for `pixel_auroc`.
        maps: As for `pixel_auroc`.

    Returns:
        A number in (0, 1]; chance is the share of anomalous pixels.

    Raises:
        ValueError: As for `pixel_auroc`.
    """
    return _gather(masks, maps).average_precision()


def aupro(
    masks: Iterable[Any], maps: Iterable[Any], fpr_limit: float = 0.3
) -> float:
    """Area under the per-region overlap curve; see `PixelScores.aupro`.

    Args:
        masks: As for `pixel_auroc`. Components have 8 neighbors.
        maps: As for `pixel_auroc`.
        fpr_limit: Where the area ends, in (0, 1]. The area is divided by it.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: As for `pixel_auroc`, or if `fpr_limit` is out of its range.
    """
    return _gather(masks, maps).aupro(fpr_limit)


def pixel_metrics(
    masks: Iterable[Any], maps: Iterable[Any], fpr_limit: float = 0.3
) -> dict[str, float]:
    """All pixel-level metrics, sorting the pixels once.

    Args:
        masks: As for `pixel_auroc`.
        maps: As for `pixel_auroc`.
        fpr_limit: Where the area under the PRO curve ends, in (0, 1].

    Returns:
        Dict of `pixel_auroc`, `pixel_ap` and `aupro`; empty if there is no
        normal or no anomalous pixel, as none is defined then.

    Raises:
        ValueError: If the arguments are not as described.
    """
    return _gather(masks, maps).compute(fpr_limit)
