"""Losses: of the block by name, of reconstructions, of predicted frames."""

from keras_sspcab.losses.block import (
    LossFunction,
    huber,
    mean_absolute_error,
    mean_squared_error,
    resolve,
    serialize,
)
from keras_sspcab.losses.focal import FocalLoss
from keras_sspcab.losses.ssim import ReconstructionLoss, ssim

__all__ = [
    "FocalLoss",
    "LossFunction",
    "ReconstructionLoss",
    "huber",
    "mean_absolute_error",
    "mean_squared_error",
    "resolve",
    "serialize",
    "ssim",
]
