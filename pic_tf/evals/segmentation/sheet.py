"""Draw images with true and told masks beside them."""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from pic_tf.evals.segmentation.masks import Picture, read_mask
from pic_tf.evals.transfer.datasets import PictureSet
from pic_tf.evals.transfer.sheet import draw_sheet

_WIDEST = 512  # pixels of an image in the sheet
_BITS = 8  # of a label


def palette() -> np.ndarray:
    """Give the colours of Pascal VOC, uint8 [256, 3].

    Bits 0, 1, 2 of a label become the highest bits of red, green and blue, bits 3, 4, 5 the next.
    """
    labels, colours = np.arange(256), np.zeros([256, 3], np.uint8)
    for bit in range(_BITS):
        colours[:, bit % 3] |= ((labels >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours


def draw_masks(data: PictureSet[Picture], told: Sequence[np.ndarray], path: pathlib.Path) -> None:
    """Draw images: the image, its true mask, the told one.

    Args:
      data: the images.
      told: uint8 [H, W], classes of the pixels of each image.
      path: PNG file to write.

    Raises:
      OSError: where it cannot be written.
    """

    def draw(axis: Axes, i: int) -> None:
        axis.imshow(_side_by_side(data, told[i], i))

    draw_sheet(range(len(told)), draw, path, across=2, height=2.0)


def _side_by_side(data: PictureSet[Picture], told: np.ndarray, i: int) -> np.ndarray:
    colours = palette()
    with Image.open(data.pictures[i].path) as image:
        first = image.convert("RGB")
    masks = [Image.fromarray(colours[m]) for m in (read_mask(data.pictures[i]), told)]
    size = (min(first.width, _WIDEST), round(first.height * min(1, _WIDEST / first.width)))
    parts = [first.resize(size), *(m.resize(size, Image.Resampling.NEAREST) for m in masks)]
    gap = np.full([size[1], max(size[0] // 32, 1), 3], 255, np.uint8)
    return np.concatenate([parts[0], gap, parts[1], gap, parts[2]], 1)
