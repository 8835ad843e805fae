"""Optical flow of videos: estimated, read from files, kept on disk.

OpenCV is imported at the first use.
"""

from keras_sspcab.data.flow.flow_files import FlowFiles
from keras_sspcab.data.flow.optical_flow import (
    DISFlow,
    FlowSource,
    OpticalFlow,
)

__all__ = [
    "DISFlow",
    "FlowFiles",
    "FlowSource",
    "OpticalFlow",
]
