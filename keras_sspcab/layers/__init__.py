"""Layers: the block and the parts that it is made of."""

from keras_sspcab.layers.attention import ChannelAttention, SpatialAttention
from keras_sspcab.layers.auxiliary_loss import (
    auxiliary_losses_disabled,
    auxiliary_losses_scaled,
)
from keras_sspcab.layers.blocks import BLOCK_TYPES, block_layer
from keras_sspcab.layers.channel_transformer import ChannelTransformer
from keras_sspcab.layers.corner_conv import masked_conv_form
from keras_sspcab.layers.gradient_reversal import GradientReversal
from keras_sspcab.layers.masked_conv import MaskedConv2D, MaskedConv3D
from keras_sspcab.layers.memories import AttentionMemory, PrototypeMemory
from keras_sspcab.layers.registration import (
    ImageRegistration,
    RegistrationGain,
)
from keras_sspcab.layers.resampling import RigidResampling
from keras_sspcab.layers.resizing import (
    BilinearUpsampling2D,
    CropLike,
    DepthToSpace,
    SpaceToDepth,
)
from keras_sspcab.layers.ssmctb import SSMCTBLayer
from keras_sspcab.layers.sspcab import SSPCABLayer
from keras_sspcab.layers.weight_norm_conv import WeightNormConv2D

__all__ = [
    "BLOCK_TYPES",
    "AttentionMemory",
    "BilinearUpsampling2D",
    "ChannelAttention",
    "ChannelTransformer",
    "CropLike",
    "DepthToSpace",
    "GradientReversal",
    "ImageRegistration",
    "MaskedConv2D",
    "MaskedConv3D",
    "PrototypeMemory",
    "RegistrationGain",
    "RigidResampling",
    "SSMCTBLayer",
    "SSPCABLayer",
    "SpaceToDepth",
    "SpatialAttention",
    "WeightNormConv2D",
    "auxiliary_losses_disabled",
    "auxiliary_losses_scaled",
    "block_layer",
    "masked_conv_form",
]
