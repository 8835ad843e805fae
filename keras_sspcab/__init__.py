"""SSPCAB for Keras 3: the block, detectors that embed it, and exports.

`import keras_sspcab` gives the layers on any backend of Keras, and makes
models that hold them loadable. `keras_sspcab.applications` holds the host
models and `keras_sspcab.export` takes them to SavedModel, TFLite and ONNX.
"""

import os as _os
import sys as _sys

# Not when started as the command: `keras-sspcab --help` shall answer at once,
# and TensorFlow must be told to be quiet before it is imported. Elsewhere the
# layers are always imported: only then does Keras find a saved model's classes.
if _os.path.basename(_sys.argv[0]) != "keras-sspcab":
    from keras_sspcab.layers import (
        ChannelAttention,
        MaskedConv2D,
        MaskedConv3D,
        SpatialAttention,
        SSPCABLayer,
    )
    from keras_sspcab.surgery import replace_penultimate_conv
    from keras_sspcab.torch_weights import from_torch_state_dict

__version__ = "0.1.0"

__all__ = [
    "ChannelAttention",
    "MaskedConv2D",
    "MaskedConv3D",
    "SSPCABLayer",
    "SpatialAttention",
    "__version__",
    "from_torch_state_dict",
    "replace_penultimate_conv",
]
