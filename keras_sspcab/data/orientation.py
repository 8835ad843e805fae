"""The orientation tag of cameras (EXIF), read and applied in a graph."""

from collections.abc import Callable

import tensorflow as tf

# Each costs 0.1 ms. Of the files that people have, none comes near: a PNG that
# has its EXIF data behind so many chunks of 8 KB has 40 MB.
_MAX_PARTS = 5_000

_Step = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]


class Bytes:
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


def apply_orientation(pixels: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    """Turns the pixels of a JPEG or PNG upright, as its EXIF data say."""
    # The walk over a large file takes longer than a look for the name.
    has_exif = tf.strings.regex_full_match(
        encoded, r"(?s)\C*(eXIf|Exif\x00\x00)\C*"
    )
    orientation = tf.cond(
        has_exif, lambda: _orientation(Bytes(encoded)), lambda: _constant(1)
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


def _orientation(file: Bytes) -> tf.Tensor:
    """Returns the tag's value, 1 to 8; 1 where there is none."""
    start = tf.cond(
        file.holds(_constant(0), b"\xff\xd8"),
        lambda: _walk(file, 2, _segment_of(file)),
        lambda: _walk(file, 8, _chunk_of(file)),
    )
    # Some programs write the mark of JPEG into PNG as well.
    start = tf.where(file.holds(start, b"Exif\0\0"), start + 6, start)
    is_big = file.holds(start, b"MM\0*")
    is_exif = is_big | file.holds(start, b"II*\0")
    return tf.cond(
        (start > 0) & is_exif,
        lambda: _read_tag(file, start, is_big),
        lambda: _constant(1),
    )


def _walk(file: Bytes, start: int, step: _Step) -> tf.Tensor:
    """Goes from part to part of a file; returns where EXIF data are, or -1."""

    def is_searching(
        place: tf.Tensor, found: tf.Tensor, is_end: tf.Tensor
    ) -> tf.Tensor:
        return (found < 0) & ~is_end & (place < file.size)

    place, found, is_end = tf.while_loop(
        is_searching,
        lambda place, found, is_end: step(place),
        (_constant(start), _constant(-1), tf.constant(False)),
        maximum_iterations=_MAX_PARTS,
        parallel_iterations=1,
    )
    check = tf.debugging.Assert(
        ~is_searching(place, found, is_end),
        [f"a file of more than {_MAX_PARTS} parts"],
    )
    with tf.control_dependencies([check]):
        return tf.identity(found)


def _segment_of(file: Bytes) -> _Step:
    """Returns the step from a segment of a JPEG to the next."""

    def step(place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        first, marker = tf.unstack(file.window(place, 2))
        # Filling in front of a marker, and what is no marker, is passed over.
        is_marker = (first == 0xFF) & (marker != 0xFF)
        is_alone = (marker <= 0x01) | ((marker >= 0xD0) & (marker <= 0xD8))
        length = tf.where(
            is_alone, _constant(0), file.number(place + 2, 2, True)
        )
        is_exif = (marker == 0xE1) & file.holds(place + 4, b"Exif\0\0")
        return (
            place + tf.where(is_marker, 2 + length, _constant(1)),
            tf.where(is_marker & is_exif, place + 4, _constant(-1)),
            # The picture itself begins, or the file ends.
            is_marker & ((marker == 0xDA) | (marker == 0xD9)),
        )

    return step


def _chunk_of(file: Bytes) -> _Step:
    """Returns the step from a chunk of a PNG to the next."""

    def step(place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return (
            place + 12 + file.number(place, 4, True),
            tf.where(file.holds(place + 4, b"eXIf"), place + 8, _constant(-1)),
            file.holds(place + 4, b"IEND"),
        )

    return step


def _read_tag(file: Bytes, start: tf.Tensor, is_big: tf.Tensor) -> tf.Tensor:
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
