"""Scores of very many images, in shards that engines score.

Nothing here knows a model: it is a function that loads a `Scorer`.
"""

from keras_sspcab.scale.engines import ENGINES, check_engine, score_shards
from keras_sspcab.scale.folder import ScoreCounts, ScoreFolder
from keras_sspcab.scale.inputs import list_inputs
from keras_sspcab.scale.plan import ScorePlan, checksum_of_model
from keras_sspcab.scale.ray_engine import RayOptions
from keras_sspcab.scale.shards import Scorer, ScoringJob

__all__ = [
    "ENGINES",
    "RayOptions",
    "ScoreCounts",
    "ScoreFolder",
    "ScorePlan",
    "Scorer",
    "ScoringJob",
    "check_engine",
    "checksum_of_model",
    "list_inputs",
    "score_shards",
]
