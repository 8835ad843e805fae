"""Image and video data: folders, checks, datasets, and textures for demos.

What videos and optical flow need beside TensorFlow (PyAV, OpenCV) is imported
at its first use.
"""

from keras_sspcab.data.cache import clear_image_cache
from keras_sspcab.data.checking import (
    BadFilesError,
    check_images,
    measure_preprocessing,
)
from keras_sspcab.data.dataset import batch_array, image_dataset
from keras_sspcab.data.decoding import decode_image
from keras_sspcab.data.downloading import download
from keras_sspcab.data.flow import DISFlow, FlowFiles, OpticalFlow
from keras_sspcab.data.folder import ImageFolder, ImageSample
from keras_sspcab.data.marked import MarkedImages
from keras_sspcab.data.region_files import read_regions
from keras_sspcab.data.resizing import decode_and_resize, resize
from keras_sspcab.data.scanning import scan_image_folder
from keras_sspcab.data.simulation import (
    EmbeddedTextures,
    FolderTextures,
    cutpaste_views,
    simulate_anomalies,
)
from keras_sspcab.data.textures import write_texture_folder
from keras_sspcab.data.tiles import tile_dataset
from keras_sspcab.data.video import (
    Video,
    VideoFolder,
    attach_labels,
    check_videos,
    clip_dataset,
    frame_labels,
    iterate_frames,
    iterate_masks,
    make_video,
    scan_video_folder,
    tracks_from_masks,
)
from keras_sspcab.preprocessing import Preprocessing

__all__ = [
    "BadFilesError",
    "DISFlow",
    "EmbeddedTextures",
    "FlowFiles",
    "FolderTextures",
    "ImageFolder",
    "ImageSample",
    "MarkedImages",
    "OpticalFlow",
    "Preprocessing",
    "Video",
    "VideoFolder",
    "attach_labels",
    "batch_array",
    "check_images",
    "check_videos",
    "clear_image_cache",
    "clip_dataset",
    "cutpaste_views",
    "decode_and_resize",
    "decode_image",
    "download",
    "frame_labels",
    "image_dataset",
    "iterate_frames",
    "iterate_masks",
    "make_video",
    "measure_preprocessing",
    "read_regions",
    "resize",
    "scan_image_folder",
    "scan_video_folder",
    "simulate_anomalies",
    "tile_dataset",
    "tracks_from_masks",
    "write_texture_folder",
]
