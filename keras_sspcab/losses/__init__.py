"""Losses of reconstructions, of predicted frames and of the block."""

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
    "ReconstructionLoss",
    "gradient_difference",
    "least_squares",
    "lucas_kanade",
    "resolve_flow",
    "ssim",
    "summed_gradient_difference",
]
