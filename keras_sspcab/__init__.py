"""SSPCAB for Keras 3: the block, detectors that embed it, and exports.

`import keras_sspcab` makes the layers loadable from saved models, on any
backend of Keras. `keras_sspcab.applications` holds the host models and
`keras_sspcab.export` takes them to SavedModel, TFLite, ONNX and OpenVINO.

Keras itself is imported when a name that needs it is used: the metrics and the
serving client do without.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from keras_sspcab.imports import lazy_names, run_after_import

if TYPE_CHECKING:
    from keras_sspcab.layers import (
        ChannelAttention,
        ChannelTransformer,
        MaskedConv2D,
        MaskedConv3D,
        SpatialAttention,
        SSMCTBLayer,
        SSPCABLayer,
    )
    from keras_sspcab.surgery import replace_penultimate_conv
    from keras_sspcab.torch_weights import from_torch_state_dict

__version__ = "0.1.0"

__all__ = [
    "ChannelAttention",
    "ChannelTransformer",
    "MaskedConv2D",
    "MaskedConv3D",
    "SSMCTBLayer",
    "SSPCABLayer",
    "SpatialAttention",
    "__version__",
    "from_torch_state_dict",
    "replace_penultimate_conv",
]

_here = Path(__file__).parent
if not (_here / "applications").is_dir():
    # A source tree has `applications` and `export` beside this package.
    __path__.append(str(_here.parent))

__getattr__ = lazy_names(
    __name__,
    {
        "ChannelAttention": "keras_sspcab.layers",
        "ChannelTransformer": "keras_sspcab.layers",
        "MaskedConv2D": "keras_sspcab.layers",
        "MaskedConv3D": "keras_sspcab.layers",
        "SSMCTBLayer": "keras_sspcab.layers",
        "SSPCABLayer": "keras_sspcab.layers",
        "SpatialAttention": "keras_sspcab.layers",
        "from_torch_state_dict": "keras_sspcab.torch_weights",
        "replace_penultimate_conv": "keras_sspcab.surgery",
    },
)


def __dir__() -> list[str]:
    return __all__


def _register_layers() -> None:
    importlib.import_module("keras_sspcab.layers")


# Keras finds a saved model's classes only if they have been imported.
run_after_import("keras", _register_layers)
