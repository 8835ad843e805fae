"""Image-level and pixel-level metrics of anomaly detection.

A larger score is more anomalous; label 1 is anomalous and 0 is normal.
"""

from keras_sspcab.metrics.curves import (
    Curve,
    precision_recall_curve,
    roc_curve,
    thin_curve,
)
from keras_sspcab.metrics.image_level import (
    auroc,
    average_precision,
    f1_optimal_threshold,
    image_metrics,
)
from keras_sspcab.metrics.pixel_level import (
    aupro,
    pixel_auroc,
    pixel_average_precision,
    pixel_metrics,
)
from keras_sspcab.metrics.pixel_scores import PixelScores

__all__ = [
    "Curve",
    "PixelScores",
    "aupro",
    "auroc",
    "average_precision",
    "f1_optimal_threshold",
    "image_metrics",
    "pixel_auroc",
    "pixel_average_precision",
    "pixel_metrics",
    "precision_recall_curve",
    "roc_curve",
    "thin_curve",
]
