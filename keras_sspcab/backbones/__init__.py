"""Pretrained networks that give the features of images, frozen."""

from keras_sspcab.backbones.loading import (
    available_backbones,
    describe_weights,
    load_backbone,
)

__all__ = ["available_backbones", "describe_weights", "load_backbone"]
