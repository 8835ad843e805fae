"""Masked convolutions: the center of the receptive field is never seen."""

import keras

from keras_sspcab.layers.corner_conv import CornerConv


@keras.saving.register_keras_serializable(package="keras_sspcab")
class MaskedConv2D(CornerConv):
    """2D convolution that sees the corners of its field, not the center.

    The receptive field is a square of side `2k' + 2d + m`. Only its four
    corners, squares of side `k'`, carry weights; the mask of `m x m` samples in
    the middle and the cross around it do not. So each output position is
    computed without the input at that position, which makes the layer a
    predictor of what it does not see. For `k'=1, d=1, m=1` the taps lie two
    samples off the center, diagonally:

        x . . . x        x: weights    M: masked center    .: unused
        . . . . .
        . . M . .
        . . . . .
        x . . . x

    Reference:
    - [Ristea et al., "Self-Supervised Predictive Convolutional Attentive
      Block for Anomaly Detection", CVPR 2022](https://arxiv.org/abs/2111.09099),
      section 3. The paper states `m=1`; its Table 5 tries `m=3` without giving
      formulas, so other values are the natural generalization. For an even `m`
      the predicted position is the top left one of the four middle ones.

    Args:
        filters: Integer, number of output channels.
        kernel_size: Integer, the side `k'` of each corner. Defaults to `1`.
        dilation_rate: Integer, the paper's `d`: samples skipped between a
            corner and the mask. Zero is allowed. Defaults to `1`.
        mask_size: Integer, the side `m` of the masked center. Defaults to `1`.
        padding_mode: `"zeros"` (the paper) or `"reflect"` (the authors'
            TensorFlow file). The spatial size is kept in both. Defaults to
            `"zeros"`.
        activation: Activation applied to the sum of the corners. Defaults to
            `None` (linear).
        per_corner_activation: Whether the bias and the activation are applied
            to each corner before the sum, as in the authors' TensorFlow file.
            Defaults to `False`.
        use_bias: Whether each corner adds a bias vector; without
            `per_corner_activation` the four act as one, their sum, as in the
            authors' PyTorch file. Defaults to `True`.
        **kwargs: `data_format`, initializers, regularizers and constraints as
            in `keras.layers.Conv2D`.

    Attributes:
        kernel: Variable of shape `(2k', 2k', channels, filters)`: the four
            corners put together without the gap between them.
        bias: Variable of shape `(4, filters)` in the order top left, top
            right, bottom left, bottom right; `None` without biases.

    Input shape:
        4D tensor `(batch, height, width, channels)`, or channels first. Only
        the channels must be known. To be reflected, height and width must
        exceed the padding; else a ValueError is raised.

    Output shape:
        As the input, with `filters` channels.

    Example:
    >>> layer = MaskedConv2D(1, kernel_initializer="ones", use_bias=False)
    >>> ops.convert_to_numpy(layer(np.ones((1, 5, 5, 1))))[0, :, :, 0]
    array([[1., 1., 2., 1., 1.],
           [1., 1., 2., 1., 1.],
           [2., 2., 4., 2., 2.],
           [1., 1., 2., 1., 1.],
           [1., 1., 2., 1., 1.]], dtype=float32)
    """

    rank = 2


@keras.saving.register_keras_serializable(package="keras_sspcab")
class MaskedConv3D(CornerConv):
    """3D convolution that sees the corners of its field, not the center.

    The rules and arguments of `MaskedConv2D` on three axes, for video and
    volumes: a cube of side `2k' + 2d + m` whose eight corners of side `k'`
    carry weights. With a depth of `2d + 1` samples or fewer the middle slices
    see no corner along that axis.

    Reference:
    - [Madan, Ristea et al., "Self-Supervised Masked Convolutional Transformer
      Block for Anomaly Detection", TPAMI
      2024](https://arxiv.org/abs/2209.12148), section 3.

    Attributes:
        kernel: Variable of shape `(2k', 2k', 2k', channels, filters)`.
        bias: Variable of shape `(8, filters)`, or `None`.

    Input shape:
        5D tensor `(batch, height, width, depth, channels)`, or channels first.
        The three spatial axes are alike, so `(batch, time, height, width,
        channels)` does as well.

    Output shape:
        As the input, with `filters` channels.

    Example:
    >>> tuple(MaskedConv3D(16)(np.zeros((2, 8, 32, 32, 4))).shape)
    (2, 8, 32, 32, 16)
    """

    rank = 3
