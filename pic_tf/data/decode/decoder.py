"""Choose how images of a pixel format are decoded."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from pic_tf.data.decode import bands, bombs, headers, pictures
from pic_tf.data.sources.pixel_format import RGB, PixelFormat


class Decoder(NamedTuple):
    """Functions of encoded images, in the order in which the input pipeline calls them.

    Attributes:
      sizes: maps string [b] to heights and widths in pixels, int32 [b, 2], 0 for those without.
      harmless: maps string [b] to string [b], images that need far too much memory made broken.
      decode_window: maps string, int32 [2] size, int32 [2] origin and int32 [2] extent to that
        window, [h, w, C].
      decode: maps string to the whole image [H, W, C], without any Python.
      reason: maps bytes to the reason why they cannot be decoded, "" for damage inside.
      black: an image of one black pixel.
    """

    sizes: Callable[[tf.Tensor], tf.Tensor]
    harmless: Callable[[tf.Tensor], tf.Tensor]
    decode_window: Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
    decode: Callable[[tf.Tensor], tf.Tensor]
    reason: Callable[[bytes], str]
    black: bytes


@functools.cache
def decoder(pixels: PixelFormat) -> Decoder:
    """The decoder of a pixel format: of pictures as people see them, or of levels as they are."""
    if pixels == RGB:
        return Decoder(
            headers.sizes,
            bombs.harmless,
            pictures.decode_window,
            pictures.decode_picture,
            pictures.reason,
            bands.black(pixels),
        )
    return Decoder(
        bands.sizes,
        bands.harmless,
        functools.partial(bands.decode_window, pixels=pixels),
        functools.partial(bands.decode_bands, pixels=pixels, tiff=False),
        functools.partial(bands.reason, pixels=pixels),
        bands.black(pixels),
    )
