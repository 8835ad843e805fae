"""What hosts are made of: base classes, checks, scoring, and the registry.

The hosts themselves are in `keras_sspcab.applications`; how to write one is in
`docs/how_to/add_a_host.md`.
"""

from keras_sspcab.hosts.arguments import (
    check_clip_shape,
    check_input_shape,
    check_places,
    check_weights,
)
from keras_sspcab.hosts.base import AnomalyModel, HostGuide, PublishedEvaluation
from keras_sspcab.hosts.detector import Untracked, require_finite_weights
from keras_sspcab.hosts.feature_graph import feature_graph
from keras_sspcab.hosts.feature_model import FeatureModel
from keras_sspcab.hosts.frames import FrameModel
from keras_sspcab.hosts.graph import output_frame, sspcab_block, stacked_frames
from keras_sspcab.hosts.inspection import InspectionModel
from keras_sspcab.hosts.normal_scores import NormalScores
from keras_sspcab.hosts.objects import ObjectModel
from keras_sspcab.hosts.products import ProductModel
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
    score_objects,
)
from keras_sspcab.variants import ImageVariants

__all__ = [
    "AnomalyModel",
    "FeatureModel",
    "FrameModel",
    "HostGuide",
    "ImageVariants",
    "InspectionModel",
    "NormalScores",
    "ObjectModel",
    "ProductModel",
    "PublishedEvaluation",
    "ScoredFrame",
    "Stage",
    "Untracked",
    "VideoStream",
    "available_applications",
    "check_clip_shape",
    "check_input_shape",
    "check_places",
    "check_weights",
    "feature_graph",
    "get_application",
    "output_frame",
    "register_application",
    "require_finite_weights",
    "score_frames",
    "score_objects",
    "sspcab_block",
    "stacked_frames",
]
