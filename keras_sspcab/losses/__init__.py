"""Losses of reconstructions, of maps of classes and of predicted frames."""

from keras_sspcab.losses.images import (
    FocalLoss,
    ReconstructionLoss,
    gradient_difference,
    least_squares,
    ssim,
    summed_gradient_difference,
)
from keras_sspcab.losses.optical_flow import lucas_kanade, resolve_flow

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
