"""Objects of videos: found, cut out into files, and batches of them.

OpenCV and onnxruntime are imported at their first use.
"""

from keras_sspcab.data.objects.box_files import BoxFiles
from keras_sspcab.data.objects.boxes import HF2VAD_PRESETS
from keras_sspcab.data.objects.cube_files import CubeFile, open_cube_file
from keras_sspcab.data.objects.dataset import count_objects, cube_dataset
from keras_sspcab.data.objects.extraction import extract_cubes
from keras_sspcab.data.objects.masks import (
    MaskFiles,
    MaskSource,
    MotionMasks,
)
from keras_sspcab.data.objects.merging import merge
from keras_sspcab.data.objects.motion import MotionProposals
from keras_sspcab.data.objects.onnx_detector import OnnxDetector
from keras_sspcab.data.objects.proposals import ObjectProposals
from keras_sspcab.data.objects.results import (
    frame_scores,
    object_index,
    objects_to_detections,
)

__all__ = [
    "HF2VAD_PRESETS",
    "BoxFiles",
    "CubeFile",
    "MaskFiles",
    "MaskSource",
    "MotionMasks",
    "MotionProposals",
    "ObjectProposals",
    "OnnxDetector",
    "count_objects",
    "cube_dataset",
    "extract_cubes",
    "frame_scores",
    "merge",
    "object_index",
    "objects_to_detections",
    "open_cube_file",
]
