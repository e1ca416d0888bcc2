"""Read the sizes of encoded images from their headers, without decoding."""

import contextlib
import struct

import numpy as np
import tensorflow as tf

from pic_tf.data.sources.formats import JPEG_START, PNG_START, READS_WEBP, WEBP_STARTS

PNG_HEADER = PNG_START + b"\0\0\0\x0dIHDR"  # width and height follow
_MOST_SEGMENTS = 1000  # of a JPEG that are looked at before its frame header
# Bytes of a frame header up to its width: FF, kind, length (2), bits, height (2), width (2).
_FRAME = 9
_RIFF, _WEBP = (int.from_bytes(start, "little") for start in WEBP_STARTS)
# Bytes of a WebP that hold its size, in each of its three forms.
_WEBP_HEADER = 30
_LOSSY, _LOSSLESS, _EXTENDED = (
    int.from_bytes(kind, "little") for kind in (b"VP8 ", b"VP8L", b"VP8X")
)
_ANIMATED = 2  # flag of an extended WebP


def sizes(encoded: tf.Tensor) -> tf.Tensor:
    """Read height and width of images from their first bytes.

    Args:
      encoded: string [b], the bytes of JPEGs, PNGs and WebPs, or of anything else.

    Returns:
      int32 [b, 2], height and width in pixels; 0 or less where none are declared, or more than 31
      bits hold, and for animated WebPs.

    Source: JPEG: ITU-T T.81, Annex B; PNG: https://www.w3.org/TR/png, IHDR; WebP:
    https://developers.google.com/speed/webp/docs/riff_container.
    """
    encoded = tf.convert_to_tensor(encoded)
    return tf.ensure_shape(_sizes(encoded), [encoded.shape[0], 2])


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)  # traced once
def _sizes(encoded: tf.Tensor) -> tf.Tensor:
    head = tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=24), tf.int32)
    png, jpeg = starts_with(encoded, PNG_HEADER), starts_with(encoded, JPEG_START)
    of_png = tf.stack([_big_endian(head[:, 20:24]), _big_endian(head[:, 16:20])], axis=1)
    of_png = tf.where(tf.strings.length(encoded)[:, None] >= 24, of_png, 0)
    found = tf.where(png[:, None], of_png, _jpeg_sizes(encoded, jpeg))
    if not READS_WEBP:
        return found
    webp = are_webp(encoded)
    return tf.cond(
        tf.reduce_any(webp),
        lambda: tf.where(webp[:, None], webp_sizes(encoded), found),
        lambda: found,
    )


def are_webp(encoded: tf.Tensor) -> tf.Tensor:
    """bool [b], true for string [b] that begin as WebPs."""
    head = tf.io.decode_raw(encoded, tf.int32, fixed_length=12)
    return (head[:, 0] == _RIFF) & (head[:, 2] == _WEBP)


def webp_sizes(encoded: tf.Tensor) -> tf.Tensor:
    """Read the sizes of WebPs, int32 [b, 2] of string [b]; 0 for animations and damaged headers."""
    head = tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=_WEBP_HEADER), tf.int32)
    kind = _little_endian(head[:, 12:16])
    lossless = _little_endian(head[:, 21:25])
    height_width = {
        _LOSSY: [_little_endian(head[:, i : i + 2]) & 0x3FFF for i in (28, 26)],
        _LOSSLESS: [(tf.bitwise.right_shift(lossless, i) & 0x3FFF) + 1 for i in (14, 0)],
        _EXTENDED: [_little_endian(head[:, i : i + 3]) + 1 for i in (27, 24)],
    }
    still = (kind != _EXTENDED) | (head[:, 20] & _ANIMATED == 0)
    whole = still & (tf.strings.length(encoded) >= _WEBP_HEADER)
    of_kind = [
        tf.where((whole & (kind == number))[:, None], tf.stack(size, axis=1), 0)
        for number, size in height_width.items()
    ]
    return tf.add_n(of_kind)


def starts_with(encoded: tf.Tensor, start: bytes) -> tf.Tensor:
    """bool [b], true for string [b] with this start."""
    return tf.strings.substr(encoded, 0, len(start)) == start


def is_animated_webp(encoded: bytes) -> bool:
    """Tell whether a WebP is an animation."""
    return encoded[12:16] == b"VP8X" and len(encoded) > 20 and bool(encoded[20] & _ANIMATED)


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
    many bytes. Where something else stands, a decoder may read on, and is asked.
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
    found = tf.while_loop(
        lambda at, searching, found: tf.reduce_any(searching),
        next_segment,
        (start, jpeg, nothing),
        maximum_iterations=_MOST_SEGMENTS,
    )[2]
    unknown = jpeg & tf.reduce_any(found < 1, axis=1)

    def ask_decoder() -> tf.Tensor:  # in Python, which holds up other threads: only what is rare
        where = tf.where(unknown)
        images = tf.gather_nd(encoded, where)
        told = tf.numpy_function(_sizes_for_decoder, [images], tf.int32, stateful=False)
        return tf.tensor_scatter_nd_update(found, where, tf.ensure_shape(told, [None, 2]))

    return tf.cond(tf.reduce_any(unknown), ask_decoder, lambda: found)


def _sizes_for_decoder(jpegs: np.ndarray) -> np.ndarray:
    """int32 [n, 2], sizes of JPEGs as the decoder reads their headers; 0 where it does not."""
    found = np.zeros([len(jpegs), 2], np.int32)
    for i, jpeg in enumerate(jpegs):
        with contextlib.suppress(tf.errors.OpError):
            found[i] = tf.io.extract_jpeg_shape(jpeg)[:2]
    return found


def _big_endian(digits: tf.Tensor) -> tf.Tensor:
    """int32 [b, n] bytes -> int32 [b]; negative where four bytes are more than 31 bits."""
    return sum(digits[:, i] * 256 ** (digits.shape[1] - 1 - i) for i in range(digits.shape[1]))


def _little_endian(digits: tf.Tensor) -> tf.Tensor:
    """int32 [b, n] bytes -> int32 [b]; wrapped around where four bytes are more than 31 bits."""
    return _big_endian(digits[:, ::-1])
