"""Objects of videos: detected, cut out into files, and batches of them.

OpenCV and onnxruntime are imported at their first use.
"""

from keras_sspcab.data.objects.box_files import BoxFiles
from keras_sspcab.data.objects.cube_files import CubeFile, open_cube_file
from keras_sspcab.data.objects.dataset import (
    count_objects,
    cube_dataset,
    to_gray,
)
from keras_sspcab.data.objects.extraction import extract_cubes
from keras_sspcab.data.objects.onnx_detector import OnnxDetector
from keras_sspcab.data.objects.proposals import (
    MaskFiles,
    MergedProposals,
    MotionMasks,
    MotionProposals,
    ObjectProposals,
)

__all__ = [
    "BoxFiles",
    "CubeFile",
    "MaskFiles",
    "MergedProposals",
    "MotionMasks",
    "MotionProposals",
    "ObjectProposals",
    "OnnxDetector",
    "count_objects",
    "cube_dataset",
    "extract_cubes",
    "open_cube_file",
    "to_gray",
]
