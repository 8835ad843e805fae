"""Simulated anomalies, as graph code for `tf.data`."""

from keras_sspcab.data.simulation.anomalies import simulate_anomalies
from keras_sspcab.data.simulation.cutpaste import cutpaste_views
from keras_sspcab.data.simulation.textures import (
    PICTURES,
    EmbeddedTextures,
    FolderTextures,
    TextureSource,
)

__all__ = [
    "PICTURES",
    "EmbeddedTextures",
    "FolderTextures",
    "TextureSource",
    "cutpaste_views",
    "simulate_anomalies",
]
