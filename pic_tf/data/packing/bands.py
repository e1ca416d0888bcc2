"""Make the record of an image of other channels or bits than RGB of 8."""

from typing import BinaryIO

import numpy as np
import tensorflow as tf
from PIL import Image

from pic_tf.data.decode.bands import decode_bands, encode_bands, harmless, reason
from pic_tf.data.sources.pixel_format import PixelFormat


def packed_bands(file: BinaryIO, short_side: int, pixels: PixelFormat) -> tuple[bytes, int, int]:
    """Decode an image, and make its record: the file itself, or its shrunk levels.

    A shrunk image is a PNG, or a TIFF where it has more than four channels; no level is lost.

    Args:
      file: a PNG, JPEG or TIFF.
      short_side: pixels; 0 to keep the size.
      pixels: format that it must have.

    Returns:
      (bytes, width, height).

    Raises:
      ValueError: for an image of another format.
      tf.errors.OpError: for one that is damaged.
    """
    file.seek(0)
    encoded = file.read()
    if other := reason(encoded, pixels):
        raise ValueError(other)
    levels = decode_bands(harmless(tf.constant([encoded]))[0], pixels).numpy()
    sides = levels.shape[:2]
    if not short_side or min(sides) <= short_side:
        return encoded, sides[1], sides[0]
    height, width = (
        short_side if side == min(sides) else int(short_side * side / min(sides)) for side in sides
    )
    planes = [
        Image.fromarray(plane.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
        for plane in np.moveaxis(levels, 2, 0)
    ]
    shrunk = np.rint(np.stack(planes, axis=2)).astype(pixels.dtype)
    return encode_bands(shrunk), width, height
