"""Show images of any channels and bits in colours."""

import numpy as np


def as_rgb(levels: np.ndarray) -> np.ndarray:
    """Show the first three channels as red, green and blue; the last one stands for missing ones.

    Levels of 16 bits are stretched to the largest one of the image.

    Args:
      levels: uint8 or uint16 [H, W, C].

    Returns:
      uint8 [H, W, 3]; RGB of 8 bits as it is.
    """
    channels = np.minimum(np.arange(3), levels.shape[-1] - 1)
    if levels.dtype != np.uint8:
        levels = np.rint(levels / max(int(levels.max()), 1) * 255).astype(np.uint8)
    return levels[..., channels]
