"""Tell channels and bits of encoded images by their headers: PNG, JPEG, TIFF."""

from types import ModuleType
from typing import BinaryIO

import numpy as np
from PIL import Image

from pic_tf.data.sources.formats import JPEG_START, PNG_START
from pic_tf.data.sources.pixel_format import PixelFormat

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # of either byte order, and BigTIFF
# Files that are read where the format is not RGB of 8 bits.
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff")
CHANNELS_OF_PNG = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type, but for palettes
PNG_HEAD = 26  # bytes up to the colour type
_CHANNELS_OF_MODE = {"L": 1, "RGB": 3}  # of a JPEG in Pillow


def format_in(file: BinaryIO) -> PixelFormat | None:
    """Read the format of an encoded image off its header.

    Args:
      file: open at its beginning.

    Returns:
      The format; None where there is none to be read.

    Raises:
      OSError: where the file cannot be read.
      ValueError: for a TIFF without tifffile, or without imagecodecs where that decodes it.
    """
    head = file.read(PNG_HEAD)
    file.seek(0)
    if head.startswith(TIFF_STARTS):
        return _format_of_tiff(file)
    if head.startswith(JPEG_START):
        try:
            return PixelFormat(_CHANNELS_OF_MODE[Image.open(file).mode], 8)
        except Exception:  # of many kinds, from a header of any content
            return None
    if head.startswith(PNG_START) and len(head) == PNG_HEAD and head[25] in CHANNELS_OF_PNG:
        return PixelFormat(CHANNELS_OF_PNG[head[25]], max(head[24], 8))
    return None


def tiff_shape(tiff: "tifffile.TiffFile") -> tuple[int, int, int]:  # noqa: F821
    """(H, W, C) of the first series of a TIFF: samples or pages are channels."""
    series = tiff.series[0]
    height, width = (series.shape[series.axes.index(axis)] for axis in "YX")
    return height, width, int(np.prod(series.shape, dtype=np.int64)) // (height * width)


def tifffile_module() -> ModuleType:
    """Import tifffile, or raise ValueError where it is not installed."""
    try:
        import tifffile
    except ImportError:
        raise ValueError(
            "expected tifffile for TIFF files, got none: pip install 'pic_tf[tiff]'"
        ) from None
    return tifffile


def _format_of_tiff(file: BinaryIO) -> PixelFormat | None:
    tifffile = tifffile_module()
    try:
        with tifffile.TiffFile(file) as tiff:
            dtype = tiff.series[0].dtype
            if dtype not in (np.uint8, np.uint16):
                return None
            found = PixelFormat(tiff_shape(tiff)[2], 8 * dtype.itemsize)
            compression = tiff.series[0].keyframe.compression
    except Exception:  # of many kinds, from a header of any content
        return None
    if compression not in tifffile.TIFF.DECOMPRESSORS:
        raise ValueError(
            f"expected imagecodecs for TIFF files compressed by {compression.name}, got none: pip "
            "install imagecodecs"
        )
    return found
