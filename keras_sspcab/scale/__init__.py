"""Scores of very many images, in shards that engines score.

Nothing here knows a model: it is a function that loads a `Scorer`.
"""

from keras_sspcab.scale.engines import RayOptions, score_shards
from keras_sspcab.scale.folder import ScoreCounts
from keras_sspcab.scale.plan import Scorer, checksum_of_model
from keras_sspcab.scale.shards import ScoringJob

__all__ = [
    "RayOptions",
    "ScoreCounts",
    "Scorer",
    "ScoringJob",
    "checksum_of_model",
    "score_shards",
]
