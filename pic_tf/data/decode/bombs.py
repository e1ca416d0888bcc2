"""Refuse images that need far more memory than their files let expect, before decoding.

A few bytes can declare 50,000 x 50,000 pixels, or hide gigabytes of text. An image that passes
takes at most 1.6 GB while it is decoded (measured: the largest progressive JPEG takes 9 bytes a
pixel, a PNG less).
"""

import math
import struct

import numpy as np
import tensorflow as tf

from pic_tf.data.decode.headers import PNG_HEADER, are_webp, png_size, starts_with
from pic_tf.data.sources.formats import JPEG_START, READS_WEBP

# Where PIL raises DecompressionBombError: 2 * PIL.Image.MAX_IMAGE_PIXELS.
# https://pillow.readthedocs.io/en/stable/reference/Image.html#PIL.Image.open
MAX_PIXELS = 178_956_970
# The first 24 bytes of a surely small enough PNG as integers: their least and largest values.
_SMALL_PNG = [
    (*struct.unpack(">4i", PNG_HEADER), side, side) for side in (1, math.isqrt(MAX_PIXELS))
]
_PNG_TEXTS = (b"zTXt", b"iTXt")  # chunks of compressed text
# Deflate grows at most 1032-fold (https://zlib.net/zlib_tech.html): the texts in a shorter PNG
# cannot take more memory than the pixels of the largest image.
_SHORT_PNG = 3 * MAX_PIXELS // 1032  # bytes
_MOST_CHUNKS = 1000  # that are looked at in the graph


def check_size(shape: tf.Tensor) -> tf.Operation:
    """Make an operation that fails for too large or empty images; decode only after it.

    Args:
      shape: int32 [2], height and width in pixels.

    Raises:
      tf.errors.InvalidArgumentError: at run time, for more than MAX_PIXELS or none.
    """
    expected = f"expected an image of at most {MAX_PIXELS:,} pixels, got height and width"
    fits = tf.reduce_all(shape > 0) & (tf.reduce_prod(tf.cast(shape, tf.int64)) <= MAX_PIXELS)
    return tf.debugging.Assert(fits, [expected, shape])


# A graph even in eager mode, where Python's errors would come out as another kind.
@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def harmless(encoded: tf.Tensor) -> tf.Tensor:
    """Check that PNGs are small enough, and leave out their parts that only take memory.

    A decoder would keep the compressed texts of a PNG, up to 8 GB. JPEGs and WebPs pass as they
    are: `check_size` is for them.

    Args:
      encoded: string [b], the bytes of JPEGs, PNGs and WebPs.

    Returns:
      string [b], the bytes of the same pictures.

    Raises:
      tf.errors.InvalidArgumentError: at run time, for more than MAX_PIXELS, or anything else than
      these formats.
    """
    jpeg = starts_with(encoded, JPEG_START)
    header = tf.io.decode_raw(encoded, tf.int32, little_endian=False, fixed_length=24)
    png = tf.reduce_all((header >= _SMALL_PNG[0]) & (header <= _SMALL_PNG[1]), axis=1)
    long_png = png & (tf.strings.length(encoded) > _SHORT_PNG)
    texts = tf.cond(
        tf.reduce_any(long_png), lambda: _holds_texts(encoded, long_png), lambda: long_png
    )
    ordinary = jpeg | (png & ~texts)
    if READS_WEBP:
        ordinary |= are_webp(encoded)

    def look_closer() -> tf.Tensor:  # in Python, which holds up other threads: only what is rare
        rare = tf.where(~ordinary)
        images = tf.gather_nd(encoded, rare)
        checked = tf.numpy_function(_harmless, [images], tf.string, stateful=False)
        return tf.tensor_scatter_nd_update(encoded, rare, checked)

    return tf.cond(tf.reduce_all(ordinary), lambda: encoded, look_closer)


def _holds_texts(encoded: tf.Tensor, png: tf.Tensor) -> tf.Tensor:
    """bool [b], true for images of `png` [b] with compressed texts, or with too many chunks."""
    end = tf.cast(tf.strings.length(encoded), tf.int64)
    texts = [int.from_bytes(kind, "big") for kind in _PNG_TEXTS]

    def next_chunk(at: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        start = tf.strings.substr(encoded, at, tf.fill(tf.shape(at), tf.constant(8, tf.int64)))
        start = tf.io.decode_raw(start, tf.int32, little_endian=False, fixed_length=8)
        length = tf.cast(tf.bitcast(start[:, 0], tf.uint32), tf.int64)
        found |= tf.reduce_any(start[:, 1:] == texts, axis=1)
        return tf.minimum(at + 12 + length, end), found

    at, found = tf.while_loop(
        lambda at, _: tf.reduce_any(at < end),
        next_chunk,
        (tf.where(png, tf.constant(8, tf.int64), end), tf.zeros_like(png)),
        maximum_iterations=_MOST_CHUNKS,
    )
    return found | (at < end)


def _harmless(images: np.ndarray) -> np.ndarray:
    """`harmless` for PNGs as an array of bytes; ValueError becomes InvalidArgumentError."""
    for image in images:
        width, height = png_size(image)
        if width * height > MAX_PIXELS:
            raise ValueError(
                f"expected an image of at most {MAX_PIXELS:,} pixels, got {width} x {height}"
            )
    return np.array([_without_texts(image) for image in images], object)


def _without_texts(png: bytes) -> bytes:
    kept, at = [png[:8]], 8
    while at + 8 <= len(png):
        start, (length, kind) = at, struct.unpack_from(">I4s", png, at)
        at += 12 + length  # length and kind come before the data, a checksum behind
        if kind not in _PNG_TEXTS:
            kept.append(png[start:at])
    return b"".join(kept)
