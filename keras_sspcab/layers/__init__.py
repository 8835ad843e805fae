"""Layers: the block and the parts that it is made of."""

from keras_sspcab.layers._masked_conv import masked_conv_form
from keras_sspcab.layers.attention import ChannelAttention, SpatialAttention
from keras_sspcab.layers.attention_memory import AttentionMemory
from keras_sspcab.layers.auxiliary_loss import auxiliary_losses_disabled
from keras_sspcab.layers.bilinear_upsampling import BilinearUpsampling2D
from keras_sspcab.layers.crop_like import CropLike
from keras_sspcab.layers.gradient_reversal import GradientReversal
from keras_sspcab.layers.masked_conv import MaskedConv2D, MaskedConv3D
from keras_sspcab.layers.prototype_memory import PrototypeMemory
from keras_sspcab.layers.sspcab import SSPCABLayer

__all__ = [
    "AttentionMemory",
    "BilinearUpsampling2D",
    "ChannelAttention",
    "CropLike",
    "GradientReversal",
    "MaskedConv2D",
    "MaskedConv3D",
    "PrototypeMemory",
    "SSPCABLayer",
    "SpatialAttention",
    "auxiliary_losses_disabled",
    "masked_conv_form",
]
