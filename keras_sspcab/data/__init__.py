"""Image and video data: folders, checks, datasets, and textures for demos.

What videos and optical flow need beside TensorFlow (PyAV, OpenCV) is imported
at its first use.
"""

from keras_sspcab.data.arrays import batch_array
from keras_sspcab.data.cache import clear_image_cache
from keras_sspcab.data.checking import (
    BadFilesError,
    BadImagesError,
    FileProblem,
    check_images,
)
from keras_sspcab.data.dataset import image_dataset
from keras_sspcab.data.decoding import (
    decode_and_resize,
    decode_image,
    decode_mask,
    resize,
    resize_mask,
)
from keras_sspcab.data.defects import DEFECTS, draw_defect
from keras_sspcab.data.flow import (
    DISFlow,
    FlowFiles,
    OpticalFlow,
    cached_flows,
)
from keras_sspcab.data.folder import ImageFolder, ImageSample
from keras_sspcab.data.scanning import IMAGE_EXTENSIONS, scan_image_folder
from keras_sspcab.data.simulation import (
    EmbeddedTextures,
    FolderTextures,
    cut_paste,
    cut_paste_scar,
    cutpaste_views,
    perlin_mask,
    perlin_noise,
    simulate_anomalies,
    simulate_anomaly,
)
from keras_sspcab.data.textures import TEXTURES, write_texture_folder
from keras_sspcab.data.video import (
    BadVideosError,
    Video,
    VideoFolder,
    attach_labels,
    cached_frames,
    check_videos,
    clip_dataset,
    frame_labels,
    iterate_frames,
    iterate_masks,
    make_video,
    scan_video_folder,
    tracks_from_masks,
)

__all__ = [
    "DEFECTS",
    "IMAGE_EXTENSIONS",
    "TEXTURES",
    "BadFilesError",
    "BadImagesError",
    "BadVideosError",
    "DISFlow",
    "EmbeddedTextures",
    "FileProblem",
    "FlowFiles",
    "FolderTextures",
    "ImageFolder",
    "ImageSample",
    "OpticalFlow",
    "Video",
    "VideoFolder",
    "attach_labels",
    "batch_array",
    "cached_flows",
    "cached_frames",
    "check_images",
    "check_videos",
    "clear_image_cache",
    "clip_dataset",
    "cut_paste",
    "cut_paste_scar",
    "cutpaste_views",
    "decode_and_resize",
    "decode_image",
    "decode_mask",
    "draw_defect",
    "frame_labels",
    "image_dataset",
    "iterate_frames",
    "iterate_masks",
    "make_video",
    "perlin_mask",
    "perlin_noise",
    "resize",
    "resize_mask",
    "scan_image_folder",
    "scan_video_folder",
    "simulate_anomalies",
    "simulate_anomaly",
    "tracks_from_masks",
    "write_texture_folder",
]
