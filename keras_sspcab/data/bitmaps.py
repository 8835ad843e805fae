"""Decodes the kinds of BMP that cameras write, in a TensorFlow graph.

TensorFlow itself takes indices into a palette for gray values and knows neither
1 nor 4 bits.
"""

import tensorflow as tf

from keras_sspcab.data.orientation import Bytes

# Red, green and blue of 32 bits, as TensorFlow takes them to lie.
_USUAL_MASKS = b"\0\0\xff\0\0\xff\0\0\xff\0\0\0"


def decode_bitmap(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes an uncompressed BMP of 1, 4, 8, 24 or 32 bits.

    Returns uint8 `(height, width, channels)`.
    """
    file = Bytes(encoded)

    def number(place: int, length: int) -> tf.Tensor:
        return file.number(tf.constant(place), length, False)

    bits, compression = number(28, 2), number(30, 4)
    has_palette = bits <= 8
    is_usual = (compression == 3) & (bits == 32)
    is_usual &= file.holds(tf.constant(54), _USUAL_MASKS)
    is_known = tf.reduce_any(bits == tf.constant([1, 4, 8, 24, 32], tf.int64))
    header = number(14, 4)
    is_known &= (header >= 40) & ((compression == 0) | is_usual)
    is_known &= number(10, 4) >= 14 + header
    check = tf.debugging.Assert(
        is_known,
        [
            tf.strings.format(
                "a BMP of a kind that only the programs of this package read "
                "({} bits, compression {}); convert it to PNG",
                (bits, compression),
            )
        ],
    )
    with tf.control_dependencies([check]):
        has_palette = tf.identity(has_palette)

    def indexed() -> tf.Tensor:
        width = number(18, 4)
        height = tf.bitcast(tf.cast(number(22, 4), tf.uint32), tf.int32)
        rows = tf.cast(tf.abs(height), tf.int64)
        row_bytes = (width * bits + 31) // 32 * 4
        start = number(10, 4)
        data = file.data[
            start : tf.minimum(start + rows * row_bytes, file.size)
        ]
        data = tf.cast(tf.reshape(data, (rows, row_bytes, 1)), tf.int32)
        # The first pixel is in the highest bits.
        bits_32 = tf.cast(bits, tf.int32)
        shifts = tf.range(8 - bits_32, -1, -bits_32)
        indices = tf.bitwise.right_shift(data, shifts) & (2**bits_32 - 1)
        indices = tf.reshape(indices, (rows, -1))[:, :width]
        indices = tf.cond(
            height > 0, lambda: tf.reverse(indices, (0,)), lambda: indices
        )
        count = number(46, 4)
        count = tf.where(count == 0, 2**bits, tf.minimum(count, 2**bits))
        place = 14 + header
        palette = tf.reshape(file.data[place : place + 4 * count], (-1, 4))
        # Blue comes first. Indices that it does not have are an error.
        return tf.gather(tf.reverse(palette[:, :3], (1,)), indices)

    pixels = tf.cond(has_palette, indexed, lambda: tf.io.decode_bmp(encoded))
    return tf.ensure_shape(pixels, (None, None, None))
