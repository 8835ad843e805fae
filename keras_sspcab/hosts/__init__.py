"""What a host model is made of: base classes, scoring, and the registry.

The hosts themselves are in `keras_sspcab.applications`.
"""

from keras_sspcab.hosts.base import AnomalyModel
from keras_sspcab.hosts.feature_model import FeatureModel, FoldScores
from keras_sspcab.hosts.frames import FrameModel
from keras_sspcab.hosts.guide import HostGuide
from keras_sspcab.hosts.object_scoring import score_objects
from keras_sspcab.hosts.objects import ObjectModel
from keras_sspcab.hosts.registry import (
    available_applications,
    get_application,
    register_application,
)
from keras_sspcab.hosts.stages import Stage
from keras_sspcab.hosts.video_scoring import (
    ScoredFrame,
    VideoStream,
    score_frames,
)

__all__ = [
    "AnomalyModel",
    "FeatureModel",
    "FoldScores",
    "FrameModel",
    "HostGuide",
    "ObjectModel",
    "ScoredFrame",
    "Stage",
    "VideoStream",
    "available_applications",
    "get_application",
    "register_application",
    "score_frames",
    "score_objects",
]
