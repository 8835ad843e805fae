"""Simulated anomalies, as graph code for `tf.data`."""

from keras_sspcab.data.simulation.anomaly import simulate_anomaly
from keras_sspcab.data.simulation.augmenters import AUGMENTERS, augment_texture
from keras_sspcab.data.simulation.cutpaste import (
    color_jitter,
    cut_paste,
    cut_paste_scar,
    cutpaste_views,
)
from keras_sspcab.data.simulation.dataset import simulate_anomalies
from keras_sspcab.data.simulation.embedded import PICTURES, EmbeddedTextures
from keras_sspcab.data.simulation.geometry import rotate
from keras_sspcab.data.simulation.perlin import perlin_mask, perlin_noise
from keras_sspcab.data.simulation.textures import FolderTextures, TextureSource

__all__ = [
    "AUGMENTERS",
    "PICTURES",
    "EmbeddedTextures",
    "FolderTextures",
    "TextureSource",
    "augment_texture",
    "color_jitter",
    "cut_paste",
    "cut_paste_scar",
    "cutpaste_views",
    "perlin_mask",
    "perlin_noise",
    "rotate",
    "simulate_anomalies",
    "simulate_anomaly",
]
