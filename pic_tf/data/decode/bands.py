"""Decode images of other channels or bits than RGB of 8: PNG, gray JPEG, multi-band TIFF.

Their levels stay as they are: no channel is made from others, no bit is dropped.
"""

import functools
import io

import numpy as np
import tensorflow as tf

from pic_tf.data.decode import bombs, headers
from pic_tf.data.decode.pictures import cut
from pic_tf.data.sources.band_formats import (
    CHANNELS_OF_PNG,
    PNG_HEAD,
    TIFF_STARTS,
    format_in,
    tiff_shape,
    tifffile_module,
)
from pic_tf.data.sources.pixel_format import PixelFormat

_MOST_OF_PNG = 4  # channels


def decodes(pixels: PixelFormat) -> bool:
    """Tell whether TensorFlow itself decodes files of a format: PNGs have up to 4 channels."""
    return pixels.channels <= _MOST_OF_PNG


def decode_bands(encoded: tf.Tensor, pixels: PixelFormat, tiff: bool = True) -> tf.Tensor:
    """Decode a PNG, a JPEG of one channel or, of any number of them, a TIFF.

    Args:
      encoded: scalar string.
      pixels: format that it must have; not RGB of 8 bits.
      tiff: whether TIFFs are decoded, in Python.

    Returns:
      uint8 or uint16 [H, W, C].

    Raises:
      tf.errors.InvalidArgumentError: at run time, for an image of another format, or one that
        cannot be decoded.
    """
    channels, dtype = pixels.channels, tf.as_dtype(pixels.dtype)

    def of_tiff() -> tf.Tensor:
        return tf.numpy_function(
            lambda image: _tiff_levels(np.asarray(image).item(), pixels),
            [encoded],
            dtype,
            stateful=False,
        )

    def png() -> tf.Tensor:
        head = tf.io.decode_raw(encoded, tf.uint8, fixed_length=PNG_HEAD)
        depths = (1, 2, 4, 8) if pixels.bit_depth == 8 else (16,)
        types = [kind for kind, count in CHANNELS_OF_PNG.items() if count == channels]
        fits = tf.reduce_any(head[24] == depths) & tf.reduce_any(head[25] == types)
        with tf.control_dependencies([tf.debugging.Assert(fits, [f"expected {pixels}"])]):
            known = channels if channels != 2 else 0  # as in the file: TensorFlow has no other word
            return tf.io.decode_png(tf.identity(encoded), channels=known, dtype=dtype)

    def jpeg() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(encoded)
        with tf.control_dependencies([tf.debugging.assert_equal(shape[2], 1)]):
            return tf.io.decode_jpeg(encoded, channels=1, dct_method="INTEGER_ACCURATE")

    if not decodes(pixels):
        return tf.ensure_shape(of_tiff(), [None, None, channels])
    decode = png
    if pixels == PixelFormat(1, 8):
        decode = functools.partial(tf.cond, tf.io.is_jpeg(encoded), jpeg, png)
    if tiff:
        decode = functools.partial(tf.cond, are_tiff(encoded[None])[0], of_tiff, decode)
    return tf.ensure_shape(decode(), [None, None, channels])


def decode_window(
    encoded: tf.Tensor,
    height_width: tf.Tensor,
    origin: tf.Tensor,
    extent: tf.Tensor,
    pixels: PixelFormat,
) -> tf.Tensor:
    """Decode a window of an image of other channels or bits, as `pictures.decode_window`."""
    del height_width  # they are decoded whole
    return cut(decode_bands(encoded, pixels), origin, extent)


def are_tiff(encoded: tf.Tensor) -> tf.Tensor:
    """bool [b], true for string [b] that begin as TIFFs."""
    return tf.add_n([tf.cast(headers.starts_with(encoded, s), tf.int32) for s in TIFF_STARTS]) > 0


def sizes(encoded: tf.Tensor) -> tf.Tensor:
    """Read height and width as `headers.sizes`, of TIFFs too: int32 [b, 2] of string [b]."""
    tiff = are_tiff(encoded)

    def of_tiffs() -> tf.Tensor:
        found = tf.numpy_function(_tiff_sizes, [encoded], tf.int32, stateful=False)
        return tf.where(tiff[:, None], tf.reshape(found, [-1, 2]), headers.sizes(encoded))

    return tf.cond(tf.reduce_any(tiff), of_tiffs, lambda: headers.sizes(encoded))


def harmless(encoded: tf.Tensor) -> tf.Tensor:
    """Do as `bombs.harmless`; TIFFs pass, since decoding looks at their sizes first."""
    tiff = are_tiff(encoded)
    checked = bombs.harmless(tf.where(tiff, black(PixelFormat(1, 8)), encoded))
    return tf.where(tiff, encoded, checked)


def encode_bands(levels: np.ndarray) -> bytes:
    """Encode levels [H, W, C], uint8 or uint16, without loss: a PNG, or a TIFF of more channels."""
    if levels.shape[2] <= _MOST_OF_PNG:
        with tf.init_scope():
            return tf.io.encode_png(levels).numpy()
    file = io.BytesIO()
    tifffile_module().imwrite(file, levels, photometric="minisblack", planarconfig="contig")
    return file.getvalue()


@functools.cache
def black(pixels: PixelFormat) -> bytes:
    """Encode one black pixel."""
    return encode_bands(np.zeros([1, 1, pixels.channels], pixels.dtype))


def reason(encoded: bytes, pixels: PixelFormat) -> str:
    """The reason why an image of another format is left out; "" for one of this format."""
    try:
        found = format_in(io.BytesIO(encoded))
    except ValueError as error:
        return str(error)
    if found is None:
        return "no PNG, JPEG or TIFF, or one whose header is damaged"
    return f"{found}, where {pixels} are expected" if found != pixels else ""


def _tiff_sizes(images: np.ndarray) -> np.ndarray:
    found = np.zeros([len(images), 2], np.int32)
    for i, image in enumerate(images):
        if image.startswith(TIFF_STARTS):
            try:
                with tifffile_module().TiffFile(io.BytesIO(image)) as tiff:
                    found[i] = tiff_shape(tiff)[:2]
            except Exception:  # of many types: it has no size
                found[i] = 0
    return found


def _tiff_levels(image: bytes, pixels: PixelFormat) -> np.ndarray:
    with tifffile_module().TiffFile(io.BytesIO(image)) as tiff:
        height, width, channels = shape = tiff_shape(tiff)
        if channels != pixels.channels or height * width > bombs.MAX_PIXELS:
            raise ValueError(f"expected {pixels}, got a TIFF {list(shape)}")
        levels, axes = tiff.series[0].asarray(), tiff.series[0].axes
    if levels.dtype != pixels.dtype:
        raise ValueError(f"expected {pixels}, got {levels.dtype}")
    levels = np.moveaxis(levels, (axes.index("Y"), axes.index("X")), (0, 1))
    return np.ascontiguousarray(levels.reshape(shape), pixels.dtype)
