"""Host models: complete anomaly detectors that embed the block."""

from keras_sspcab.applications.autoencoder import AutoEncoder
from keras_sspcab.applications.background_agnostic import BackgroundAgnostic
from keras_sspcab.applications.cutpaste import CutPaste
from keras_sspcab.applications.draem import DRAEM
from keras_sspcab.applications.ensemble import Ensemble
from keras_sspcab.applications.future_frame import FutureFrame
from keras_sspcab.applications.hf2vad import HF2VAD
from keras_sspcab.applications.mnad import MNAD
from keras_sspcab.applications.multiscale_padim import MultiScalePaDiM
from keras_sspcab.applications.object_autoencoder import ObjectAutoEncoder
from keras_sspcab.applications.padim import PaDiM
from keras_sspcab.applications.patchcore import PatchCore

__all__ = [
    "DRAEM",
    "HF2VAD",
    "MNAD",
    "AutoEncoder",
    "BackgroundAgnostic",
    "CutPaste",
    "Ensemble",
    "FutureFrame",
    "MultiScalePaDiM",
    "ObjectAutoEncoder",
    "PaDiM",
    "PatchCore",
]
