"""Make the record of an image: the file itself, or its picture encoded anew and shrunk."""

import io
import math
import warnings
from typing import BinaryIO

import numpy as np
import tensorflow as tf
from PIL import Image

from pic_tf.data import crops
from pic_tf.data.decode import bombs, headers
from pic_tf.data.sources.formats import READS_WEBP

Image.init()
_FORMATS = [name for name in Image.OPEN if name != "EPS"]  # for EPS, Pillow would start a program
_LOSSLESS = (
    "JPEG",
    "MPO",
    "PNG",
    "WEBP",
    "GIF",
)  # formats that keep every level where none shrinks
_EIGHT_BITS = (b"\x08\x00", b"\x08\x02")  # depth and colour type in the header of a PNG: gray, RGB
warnings.filterwarnings("ignore", module=r"PIL\.")  # of what Pillow reads all the same


def packed_image(file: BinaryIO, short_side: int, quality: int) -> tuple[bytes, int, int]:
    """Decode an image to its last pixel, and make its record.

    That is the file itself, if it is a JPEG (gray or colour), a PNG (gray or RGB of 8 bits) or a
    WebP whose short side is `short_side` at most, no animation, and the decoder of training reads
    it. Otherwise it is a JPEG of the picture in RGB, shrunk to `short_side` as torchvision's Resize
    does; a PNG where nothing is shrunk and a JPEG would change what training reads of the file, or
    ripple around the lines of a drawing. The picture is the first frame of an animation, the
    upper 8 of 16 bits, without alpha. The orientation that a camera noted is passed over, as in
    training from a folder.

    Args:
      file: an image in a format that Pillow reads.
      short_side: pixels; 0 to keep the size.
      quality: quality of the JPEG, 1 to 100.

    Returns:
      (bytes, width, height).

    Raises:
      Exception: of any kind, for a file that is damaged, no image, or larger than
        `bombs.MAX_PIXELS`.
    """
    file.seek(0)
    with Image.open(file, formats=_FORMATS) as image:
        image.load()
        kept = _kept(image, file, short_side)
        if kept is not None:
            return kept, *image.size
        picture = _rgb(image)
    width, height = picture.size
    short = min(width, height)
    shrinks = bool(short_side) and short > short_side
    if shrinks:
        width, height = (
            short_side if side == short else int(short_side * side / short) for side in picture.size
        )
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    picture.info.clear()  # Pillow would store a comment
    buffer = io.BytesIO()
    encoding = "PNG" if image.format in _LOSSLESS and not shrinks else "JPEG"
    picture.save(buffer, encoding, quality=quality)
    return buffer.getvalue(), width, height


def trace_decoder() -> None:
    """Trace the decoder of training, by which records are checked: the first time takes seconds."""
    _decode.get_concrete_function()


def _kept(image: Image.Image, file: BinaryIO, short_side: int) -> bytes | None:
    """The file itself, if it can stay as it is."""
    if image.format not in _LOSSLESS[:-1] or (short_side and min(image.size) > short_side):
        return None
    file.seek(0)
    encoded = file.read()
    if image.format in ("JPEG", "MPO"):
        plain = image.mode in ("L", "RGB")
    elif image.format == "WEBP":
        plain = READS_WEBP and not image.is_animated
    else:
        plain = encoded[24:26] in _EIGHT_BITS and not image.is_animated
    return encoded if plain and _trains(encoded) else None


def _trains(encoded: bytes) -> bool:
    try:
        _decode([encoded])
        return True
    except tf.errors.OpError:
        return False


@tf.function(input_signature=[tf.TensorSpec([1], tf.string)], autograph=False)
def _decode(encoded: tf.Tensor) -> tf.Tensor:
    encoded = bombs.harmless(encoded)
    size = headers.sizes(encoded)[0]
    everything = tf.concat([[0, 0], size], axis=0)[None]
    return crops.crop_encoded(encoded[0], size, everything, [crops.Crop(size=1)])[0]


def _rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB as viewers do; Pillow alone would clip levels above 255."""
    if image.mode == "F" or image.mode.startswith("I"):
        levels = np.asarray(image)
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
            levels = levels >> 8
        else:  # no scale of its own: from the darkest pixel to the brightest
            low, high = float(levels.min()), float(levels.max())
            if not math.isfinite(high - low):
                raise ValueError("pixels that are not finite")
            levels = (levels - low) * (255 / max(high - low, 1e-30))
        image = Image.fromarray(levels.astype(np.uint8))
    return image.convert("RGB")
