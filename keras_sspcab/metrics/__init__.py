"""Image-level, pixel-level and video metrics of anomaly detection.

A larger score is more anomalous; label 1 is anomalous and 0 is normal. Only
NumPy is needed to import this package.
"""

from keras_sspcab.metrics.boxes import (
    read_detections,
    read_tracks,
    write_detections,
    write_tracks,
)
from keras_sspcab.metrics.frame_level import (
    FrameAuc,
    macro_auc,
    micro_auc,
    normalize_per_video,
    smooth_frames,
)
from keras_sspcab.metrics.image_level import (
    Curve,
    auroc,
    average_precision,
    f1_optimal_threshold,
    image_metrics,
    precision_recall_curve,
    roc_curve,
)
from keras_sspcab.metrics.pixel_level import PixelScores, pixel_metrics
from keras_sspcab.metrics.region_level import RegionMetrics, rbdc_tbdc

__all__ = [
    "Curve",
    "FrameAuc",
    "PixelScores",
    "RegionMetrics",
    "auroc",
    "average_precision",
    "f1_optimal_threshold",
    "image_metrics",
    "macro_auc",
    "micro_auc",
    "normalize_per_video",
    "pixel_metrics",
    "precision_recall_curve",
    "rbdc_tbdc",
    "read_detections",
    "read_tracks",
    "roc_curve",
    "smooth_frames",
    "write_detections",
    "write_tracks",
]
