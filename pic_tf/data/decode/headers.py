"""Sizes that encoded images declare, of a whole batch in the graph; nothing is decoded."""

import contextlib
import struct

import numpy as np
import tensorflow as tf

JPEG_START, GIF_START = b"\xff\xd8\xff", b"GIF8"
PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"  # width and height follow
_MOST_SEGMENTS = 1000  # of a JPEG that are looked at before its frame header
_FRAME = 9  # bytes of a frame header up to its width: FF, kind, length (2), bits, height (2), width (2)


def sizes(encoded: tf.Tensor) -> tf.Tensor:
    """Height and width of images, read from their first bytes.

    Args:
      encoded: string [b], the bytes of JPEGs, PNGs, GIFs, or of anything else.

    Returns:
      int32 [b, 2], height and width in pixels; of a GIF those of its first frame. 0 or less where none are declared,
      or more than 31 bits hold.

    Source: JPEG: ITU-T T.81, Annex B; PNG: https://www.w3.org/TR/png, IHDR.
    """
    head = tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=24), tf.int32)
    png, jpeg = starts_with(encoded, PNG_START), starts_with(encoded, JPEG_START)
    of_png = tf.stack([_big_endian(head[:, 20:24]), _big_endian(head[:, 16:20])], axis=1)
    of_png = tf.where(tf.strings.length(encoded)[:, None] >= 24, of_png, 0)
    found = tf.where(png[:, None], of_png, _jpeg_sizes(encoded, jpeg))

    def look_closer() -> tf.Tensor:  # in Python, which holds up other threads: only what is rare
        rare = tf.where(~(png | jpeg))
        of_gif = tf.numpy_function(_gif_sizes, [tf.gather_nd(encoded, rare)], tf.int32, stateful=False)
        return tf.tensor_scatter_nd_update(found, rare, tf.ensure_shape(of_gif, [None, 2]))

    return tf.cond(tf.reduce_all(png | jpeg), lambda: found, look_closer)


def starts_with(encoded: tf.Tensor, start: bytes) -> tf.Tensor:
    """bool [b], which of string [b] begin so."""
    return tf.strings.substr(encoded, 0, len(start)) == start


def declared_size(encoded: bytes) -> tuple[int, int]:
    """(width, height) in pixels that a PNG or a GIF (its first frame) declares, however large.

    Raises:
      ValueError: for anything else.
    """
    if encoded.startswith(PNG_START) and len(encoded) >= 24:
        return struct.unpack_from(">II", encoded, 16)
    if encoded.startswith(GIF_START):
        return struct.unpack_from("<HH", encoded, first_frame(encoded)[0] + 5)
    raise ValueError("expected a JPEG, PNG or GIF image, got something else")


def first_frame(gif: bytes) -> tuple[int, int]:
    """Where the first frame of a GIF starts and ends.

    Raises:
      ValueError: for a GIF without a whole frame.

    Source: https://www.w3.org/Graphics/GIF/spec-gif89a.txt
    """

    def colours(flags: int) -> int:  # bytes of the table that these flags announce
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    def past_blocks(at: int) -> int:  # each is a length and as many bytes; a length of 0 ends them
        while gif[at]:
            at += 1 + gif[at]
        return at + 1

    try:
        start = 13 + colours(gif[10])
        while gif[start : start + 1] == b"!":  # an extension
            start = past_blocks(start + 2)
        if gif[start : start + 1] == b",":
            return start, past_blocks(start + 10 + colours(gif[start + 9]) + 1)
    except IndexError:
        pass
    raise ValueError("expected a GIF with a whole frame, got none")


def _gif_sizes(images: np.ndarray) -> np.ndarray:
    """int32 [n, 2], height and width of bytes [n]; 0 for anything but a GIF with a whole frame."""
    found = np.zeros([len(images), 2], np.int32)
    for i, image in enumerate(images):
        with contextlib.suppress(ValueError):
            found[i] = declared_size(image)[::-1]
    return found


def _jpeg_sizes(encoded: tf.Tensor, jpeg: tf.Tensor) -> tf.Tensor:
    """int32 [b, 2], from the first frame header of each image that is a `jpeg` (bool [b]); 0 for anything else.

    Walks all images at once, segment by segment, as a decoder does: a kind and a length, then as many bytes. Where
    something else stands, a decoder may read on; here such an image has no size.
    """
    end = tf.cast(tf.strings.length(encoded), tf.int64)
    bytes_ahead = tf.fill(tf.shape(end), tf.constant(_FRAME, tf.int64))

    def next_segment(at: tf.Tensor, searching: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        head = tf.io.decode_raw(tf.strings.substr(encoded, at, bytes_ahead), tf.uint8, fixed_length=_FRAME)
        head = tf.cast(head, tf.int32)
        marker, kind, length = head[:, 0] == 0xFF, head[:, 1], _big_endian(head[:, 2:4])
        fill = marker & (kind == 0xFF)  # any number of these may come before a kind
        # D0 to D9, between the kinds of segments, have no length.
        segment = marker & (kind >= 0xC0) & (kind < 0xFF) & ((kind < 0xD0) | (kind > 0xD9)) & (length >= 2)
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
