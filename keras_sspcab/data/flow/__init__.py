"""Optical flow of videos: estimated, read from files, kept on disk.

OpenCV is imported at the first use.
"""

from keras_sspcab.data.flow.cache import cached_flows
from keras_sspcab.data.flow.dis import DISFlow
from keras_sspcab.data.flow.flow_files import FlowFiles
from keras_sspcab.data.flow.middlebury import read_flo, write_flo
from keras_sspcab.data.flow.optical_flow import (
    FlowSource,
    OpticalFlow,
    resize_flow,
)

__all__ = [
    "DISFlow",
    "FlowFiles",
    "FlowSource",
    "OpticalFlow",
    "cached_flows",
    "read_flo",
    "resize_flow",
    "write_flo",
]
