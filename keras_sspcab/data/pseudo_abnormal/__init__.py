"""Pseudo-abnormal objects: pictures of other things, and sped-up motion."""

from keras_sspcab.data.pseudo_abnormal.dataset import add_pseudo_abnormal
from keras_sspcab.data.pseudo_abnormal.motion import speed_up
from keras_sspcab.data.pseudo_abnormal.pictures import (
    EmbeddedPictures,
    FolderPictures,
    PictureSource,
)
from keras_sspcab.data.pseudo_abnormal.tiny_imagenet import (
    TINY_IMAGENET_CLASSES,
    tiny_imagenet_folders,
)

__all__ = [
    "TINY_IMAGENET_CLASSES",
    "EmbeddedPictures",
    "FolderPictures",
    "PictureSource",
    "add_pseudo_abnormal",
    "speed_up",
    "tiny_imagenet_folders",
]
