"""Scores of very many images, in shards that engines work off.

Nothing here knows a model: it is a function that loads a `Scorer`.
"""

from keras_sspcab.scale.checksums import checksum_of_model
from keras_sspcab.scale.folder import ScoreFolder
from keras_sspcab.scale.inputs import list_inputs
from keras_sspcab.scale.plan import Plan
from keras_sspcab.scale.ray_engine import RayOptions
from keras_sspcab.scale.run import ENGINES, run_job
from keras_sspcab.scale.shards import Job, Scorer

__all__ = [
    "ENGINES",
    "Job",
    "Plan",
    "RayOptions",
    "ScoreFolder",
    "Scorer",
    "checksum_of_model",
    "list_inputs",
    "run_job",
]
