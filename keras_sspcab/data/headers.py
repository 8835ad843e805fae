"""What image files say of themselves, read in a TensorFlow graph.

The orientation tag of cameras (EXIF), and the kinds of BMP that cameras write:
TensorFlow itself takes indices into a palette for gray values and knows neither
1 nor 4 bits.
"""

import functools
from typing import Any

import tensorflow as tf

# Red, green and blue of 32 bits, as TensorFlow takes them to lie.
_USUAL_MASKS = b"\0\0\xff\0\0\xff\0\0\xff\0\0\0"

# Names of EXIF data in a PNG, and segments of a JPEG, that are looked at.
_MAX_NAMES = 1000


class _Bytes:
    """Reads numbers from the bytes of a file, in a TensorFlow graph.

    Bytes beyond the end are zeros.
    """

    def __init__(self, encoded: tf.Tensor) -> None:
        data = tf.io.decode_raw(encoded, tf.uint8)
        self.size = tf.size(data, tf.int64)
        self.data = tf.concat([data, tf.zeros(16, tf.uint8)], 0)

    def window(self, start: tf.Tensor, length: int) -> tf.Tensor:
        """Returns up to 16 bytes."""
        start = tf.clip_by_value(tf.cast(start, tf.int64), 0, self.size)
        return tf.ensure_shape(self.data[start : start + length], length)

    def holds(self, start: tf.Tensor, text: bytes) -> tf.Tensor:
        """Whether the bytes from `start` on are those of `text`."""
        return tf.reduce_all(self.window(start, len(text)) == list(text))

    def number(
        self, start: tf.Tensor, length: int, is_big: tf.Tensor | bool
    ) -> tf.Tensor:
        """Returns an unsigned number, int64, big-endian or little-endian."""
        return _number(self.window(start, length), is_big)


# === Orientation ===


def apply_orientation(pixels: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    """Turns the pixels of a JPEG or PNG upright, as its EXIF data say."""
    # Quicker in a large file than what follows.
    has_exif = tf.strings.regex_full_match(
        encoded, r"(?s)\C*(eXIf|Exif\x00\x00)\C*"
    )
    orientation = tf.cond(
        has_exif, lambda: _orientation(_Bytes(encoded)), lambda: _constant(1)
    )

    def turn() -> tf.Tensor:
        def is_any(*values: int) -> tf.Tensor:
            return tf.reduce_any(orientation == tf.constant(values, tf.int64))

        turned = tf.cond(
            orientation >= 5,
            lambda: tf.transpose(pixels, (1, 0, 2)),
            lambda: pixels,
        )
        turned = tf.cond(
            is_any(2, 3, 6, 7),
            lambda: tf.reverse(turned, (1,)),
            lambda: turned,
        )
        return tf.cond(
            is_any(3, 4, 7, 8),
            lambda: tf.reverse(turned, (0,)),
            lambda: turned,
        )

    return tf.cond(orientation > 1, turn, lambda: pixels)


def is_upright(encoded: bytes) -> bool:
    """Whether the EXIF data of an image file ask for no rotation."""
    return int(_orientation_reader()(tf.constant(encoded))) == 1


@functools.cache
def _orientation_reader() -> Any:
    return tf.function(
        lambda encoded: _orientation(_Bytes(encoded)),
        input_signature=[tf.TensorSpec((), tf.string)],
        autograph=False,
    ).get_concrete_function()


def _orientation(file: _Bytes) -> tf.Tensor:
    """Returns the tag's value, 1 to 8; 1 where there is none."""
    start = _find_exif(file)
    return tf.cond(
        start > 0,
        lambda: _read_tag(file, start, file.holds(start, b"MM")),
        lambda: _constant(1),
    )


def _find_exif(file: _Bytes) -> tf.Tensor:
    """Returns where EXIF data begin, or -1."""
    return tf.cond(
        file.holds(_constant(0), b"\xff\xd8"),
        lambda: _find_in_jpeg(file),
        lambda: _find_in_png(file),
    )


def _find_in_jpeg(file: _Bytes) -> tf.Tensor:
    """Goes from segment to segment, up to the EXIF data or the pixels.

    Other segments, and what follows the pixels, may hold other images.
    """

    def step(place: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        first, marker = tf.unstack(file.window(place, 2))
        # Filling in front of a marker, and what is no marker, is passed over.
        is_marker = (first == 0xFF) & (marker != 0xFF)
        is_alone = (marker <= 0x01) | ((marker >= 0xD0) & (marker <= 0xD8))
        length = tf.where(
            is_alone, _constant(0), file.number(place + 2, 2, True)
        )
        is_exif = is_marker & (marker == 0xE1)
        is_exif &= file.holds(place + 4, b"Exif\0\0")
        is_exif &= file.holds(place + 10, b"II*\0") | file.holds(
            place + 10, b"MM\0*"
        )
        is_end = is_marker & ((marker == 0xDA) | (marker == 0xD9))
        following = place + tf.where(is_marker, 2 + length, _constant(1))
        return (
            tf.where(is_end, file.size, following),
            tf.where(is_exif, place + 10, _constant(-1)),
        )

    _, found = tf.while_loop(
        lambda place, found: (found < 0) & (place < file.size),
        step,
        (_constant(2), _constant(-1)),
        maximum_iterations=_MAX_NAMES,
        parallel_iterations=1,
    )
    return found


def _find_in_png(file: _Bytes) -> tf.Tensor:
    """Looks for the chunk eXIf, wherever it is.

    Some programs write the mark of JPEG into it as well.
    """
    parts = [file.data[i:][: file.size] == b for i, b in enumerate(b"eXIf")]
    places = tf.where(tf.reduce_all(parts, axis=0))[:_MAX_NAMES, 0]
    around = tf.range(14, dtype=tf.int64)
    windows = tf.gather(file.data, places[:, None] + around)

    def holds(offset: int, text: bytes) -> tf.Tensor:
        part = windows[:, offset : offset + len(text)]
        return tf.reduce_all(part == list(text), axis=1)

    def is_tiff(offset: int) -> tf.Tensor:
        return holds(offset, b"II*\0") | holds(offset, b"MM\0*")

    is_marked = holds(4, b"Exif\0\0") & is_tiff(10)
    starts = (
        tf.boolean_mask(places + 4, is_tiff(4)),
        tf.boolean_mask(places + 10, is_marked),
    )
    found = tf.concat(starts, 0)
    return tf.cond(
        file.holds(_constant(1), b"PNG") & (tf.size(found) > 0),
        lambda: tf.reduce_min(found),
        lambda: _constant(-1),
    )


def _read_tag(file: _Bytes, start: tf.Tensor, is_big: tf.Tensor) -> tf.Tensor:
    """Reads the tag from TIFF data, of which the first directory counts."""
    place = start + file.number(start + 4, 4, is_big)
    place = tf.clip_by_value(place, 0, file.size)
    count = file.number(place, 2, is_big)
    entries = file.data[place + 2 : place + 2 + 12 * count]
    entries = tf.reshape(entries[: tf.size(entries) // 12 * 12], (-1, 12))
    kind = _number(entries[:, 2:4], is_big)
    value = tf.where(
        kind == 3,
        _number(entries[:, 8:10], is_big),
        _number(entries[:, 8:12], is_big),
    )
    is_tag = (
        (_number(entries[:, :2], is_big) == 0x0112)
        & ((kind == 3) | (kind == 4))
        & (_number(entries[:, 4:8], is_big) == 1)
        & (value >= 1)
        & (value <= 8)
    )
    return tf.reduce_max(tf.where(is_tag, value, _constant(1)))


def _number(data: tf.Tensor, is_big: tf.Tensor | bool) -> tf.Tensor:
    """Turns the last axis, of bytes, into unsigned numbers."""
    values = tf.cast(data, tf.int64)
    values = tf.where(is_big, values, tf.reverse(values, (-1,)))
    weights = [256**i for i in reversed(range(data.shape[-1]))]
    return tf.reduce_sum(values * tf.constant(weights, tf.int64), -1)


def _constant(value: int) -> tf.Tensor:
    return tf.constant(value, tf.int64)


# === BMP ===


def decode_bitmap(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes an uncompressed BMP of 1, 4, 8, 24 or 32 bits.

    Returns uint8 `(height, width, channels)`.
    """
    file = _Bytes(encoded)

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
