"""Read the sizes of encoded images from their headers, in the graph, without decoding."""

import struct

import tensorflow as tf

from pic_tf.data.sources.formats import JPEG_START, PNG_START

PNG_HEADER = PNG_START + b"\0\0\0\x0dIHDR"  # width and height follow
_MOST_SEGMENTS = 1000  # of a JPEG that are looked at before its frame header
# Bytes of a frame header up to its width: FF, kind, length (2), bits, height (2), width (2).
_FRAME = 9


def sizes(encoded: tf.Tensor) -> tf.Tensor:
    """Read height and width of images from their first bytes.

    Args:
      encoded: string [b], the bytes of JPEGs, PNGs, or of anything else.

    Returns:
      int32 [b, 2], height and width in pixels; 0 or less where none are declared, or more than 31
      bits hold.

    Source: JPEG: ITU-T T.81, Annex B; PNG: https://www.w3.org/TR/png, IHDR.
    """
    head = tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=24), tf.int32)
    png, jpeg = starts_with(encoded, PNG_HEADER), starts_with(encoded, JPEG_START)
    of_png = tf.stack([_big_endian(head[:, 20:24]), _big_endian(head[:, 16:20])], axis=1)
    of_png = tf.where(tf.strings.length(encoded)[:, None] >= 24, of_png, 0)
    return tf.where(png[:, None], of_png, _jpeg_sizes(encoded, jpeg))


def starts_with(encoded: tf.Tensor, start: bytes) -> tf.Tensor:
    """bool [b], true for string [b] with this start."""
    return tf.strings.substr(encoded, 0, len(start)) == start


def png_size(encoded: bytes) -> tuple[int, int]:
    """(width, height) in pixels that a PNG declares, however large.

    Raises:
      ValueError: for anything else.
    """
    if encoded.startswith(PNG_HEADER) and len(encoded) >= 24:
        return struct.unpack_from(">II", encoded, 16)
    raise ValueError("expected a JPEG or PNG image, got something else")


def _jpeg_sizes(encoded: tf.Tensor, jpeg: tf.Tensor) -> tf.Tensor:
    """int32 [b, 2], sizes in the first frame headers of JPEGs (bool [b]); 0 for anything else.

    Walks all images at once, segment by segment, as a decoder does: a kind and a length, then as
    many bytes. Where something else stands, a decoder may read on; here such an image has no size.
    """
    end = tf.cast(tf.strings.length(encoded), tf.int64)
    bytes_ahead = tf.fill(tf.shape(end), tf.constant(_FRAME, tf.int64))

    def next_segment(at: tf.Tensor, searching: tf.Tensor, found: tf.Tensor):
        head = tf.strings.substr(encoded, at, bytes_ahead)
        head = tf.cast(tf.io.decode_raw(head, tf.uint8, fixed_length=_FRAME), tf.int32)
        marker, kind, length = head[:, 0] == 0xFF, head[:, 1], _big_endian(head[:, 2:4])
        fill = marker & (kind == 0xFF)  # any number of these may come before a kind
        # D0 to D9, between the kinds of segments, have no length.
        kind_of_segment = (kind >= 0xC0) & (kind < 0xFF) & ((kind < 0xD0) | (kind > 0xD9))
        segment = marker & kind_of_segment & (length >= 2)
        # C4, C8 and CC, between the kinds of frames, are none.
        frame = segment & (kind < 0xD0) & ((kind % 4 != 0) | (kind == 0xC0))
        size = tf.stack([_big_endian(head[:, 5:7]), _big_endian(head[:, 7:9])], axis=1)
        found = tf.where((searching & frame & (at + _FRAME <= end))[:, None], size, found)
        at = tf.minimum(at + tf.cast(tf.where(fill, 1, 2 + length), tf.int64), end)
        return at, searching & (segment | fill) & ~frame & (at < end), found

    start = tf.where(jpeg, tf.constant(2, tf.int64), end)
    nothing = tf.zeros([tf.shape(encoded)[0], 2], tf.int32)
    return tf.while_loop(
        lambda at, searching, found: tf.reduce_any(searching),
        next_segment,
        (start, jpeg, nothing),
        maximum_iterations=_MOST_SEGMENTS,
    )[2]


def _big_endian(digits: tf.Tensor) -> tf.Tensor:
    """int32 [b, n] bytes -> int32 [b]; negative where four bytes are more than 31 bits."""
    return sum(digits[:, i] * 256 ** (digits.shape[1] - 1 - i) for i in range(digits.shape[1]))
