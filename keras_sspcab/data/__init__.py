"""Image data: folders, checks, datasets, and demo data of textures."""

from keras_sspcab.data.arrays import batch_array
from keras_sspcab.data.cache import clear_image_cache
from keras_sspcab.data.checking import (
    BadImagesError,
    ImageProblem,
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

__all__ = [
    "DEFECTS",
    "IMAGE_EXTENSIONS",
    "TEXTURES",
    "BadImagesError",
    "EmbeddedTextures",
    "FolderTextures",
    "ImageFolder",
    "ImageProblem",
    "ImageSample",
    "batch_array",
    "check_images",
    "clear_image_cache",
    "cut_paste",
    "cut_paste_scar",
    "cutpaste_views",
    "decode_and_resize",
    "decode_image",
    "decode_mask",
    "draw_defect",
    "image_dataset",
    "perlin_mask",
    "perlin_noise",
    "resize",
    "resize_mask",
    "scan_image_folder",
    "simulate_anomalies",
    "simulate_anomaly",
    "write_texture_folder",
]
