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
from keras_sspcab.losses.frames import (
    gradient_difference,
    least_squares,
    summed_gradient_difference,
)
from keras_sspcab.losses.optical_flow import lucas_kanade, resolve_flow
from keras_sspcab.losses.ssim import ReconstructionLoss, ssim

__all__ = [
    "FocalLoss",
    "LossFunction",
    "ReconstructionLoss",
    "gradient_difference",
    "huber",
    "least_squares",
    "lucas_kanade",
    "mean_absolute_error",
    "mean_squared_error",
    "resolve",
    "resolve_flow",
    "serialize",
    "ssim",
    "summed_gradient_difference",
]
