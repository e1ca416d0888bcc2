"""Define the format of a source's pixels: number of channels, and bits of a level."""

from typing import NamedTuple

import numpy as np

BIT_DEPTHS = (8, 16)


class PixelFormat(NamedTuple):
    """Channels and bits of each pixel.

    Attributes:
      channels: number of channels.
      bit_depth: 8 or 16 bits a level.
    """

    channels: int = 3
    bit_depth: int = 8

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """Type of a level: uint8 or uint16."""
        return np.uint8 if self.bit_depth == 8 else np.uint16

    def __str__(self) -> str:
        plural = "s" if self.channels > 1 else ""
        return f"{self.channels} channel{plural} of {self.bit_depth} bits"


RGB = PixelFormat()  # of 8 bits


def format_of(images: np.ndarray) -> PixelFormat | None:
    """Tell the format of an array's pixels; None for an array that holds no images.

    Args:
      images: [N, H, W, C] of uint8 or uint16.
    """
    if images.ndim != 4 or images.dtype not in (np.uint8, np.uint16) or 0 in images.shape:
        return None
    return PixelFormat(images.shape[3], 8 * images.dtype.itemsize)
