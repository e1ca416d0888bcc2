"""Boxes (x1, y1, x2, y2) of pixels: areas, overlaps, anchors, and differences between boxes.

Coordinates are of edges: pixel i reaches from i to i + 1, so a box is x2 - x1 wide.
"""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

# Largest growth that a network may ask for: from one cell of stride 16 to 1,000 pixels.
_MAX_LOG_GROWTH = math.log(1000.0 / 16)


def areas(boxes: tf.Tensor) -> tf.Tensor:
    """Compute areas [...] of boxes [..., 4]; 0 for one that is turned inside out."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return tf.maximum(width, 0.0) * tf.maximum(height, 0.0)


def overlaps(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Compute the intersection over the union (IoU) of every pair of boxes.

    Args:
      one: float32 [..., N, 4].
      other: float32 [..., M, 4].

    Returns:
      float32 [..., N, M] in [0, 1]; 0 where neither box has an area.
    """
    one, other = one[..., :, None, :], other[..., None, :, :]
    low = tf.maximum(one[..., :2], other[..., :2])
    high = tf.minimum(one[..., 2:], other[..., 2:])
    shared = areas(tf.concat([low, high], -1))
    return tf.math.divide_no_nan(shared, areas(one) + areas(other) - shared)


def anchors(
    height: tf.Tensor | int,
    width: tf.Tensor | int,
    stride: int,
    sizes: Sequence[float],
    ratios: Sequence[float],
) -> tf.Tensor:
    """Lay boxes of all sizes and shapes around every cell's upper left corner.

    A box of size s and ratio r is s / sqrt(r) wide and s sqrt(r) high; its centre is (stride x,
    stride y).

    Args:
      height, width: cells of the feature map.
      stride: pixels between two cells.
      sizes: square roots of the areas in pixels.
      ratios: heights as multiples of the widths.

    Returns:
      float32 [height width len(sizes) len(ratios), 4], row by row, size by size, ratio by ratio.

    Source: Ren et al. 2015 (https://arxiv.org/abs/1506.01497), Section 3.1.1.
    """
    halves = np.array([(s / r**0.5 / 2, s * r**0.5 / 2) for s in sizes for r in ratios], np.float32)
    around = tf.constant(np.concatenate([-halves, halves], 1))
    y = tf.cast(stride * tf.range(height), tf.float32)
    x = tf.cast(stride * tf.range(width), tf.float32)
    centres = tf.stack([*tf.meshgrid(x, y), *tf.meshgrid(x, y)], -1)
    return tf.reshape(centres[:, :, None] + around, [-1, 4])


def encode(
    boxes: tf.Tensor, references: tf.Tensor, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)
) -> tf.Tensor:
    """Express boxes by their differences from others.

        dx = w_x (x - x_r) / width_r,    dw = w_w log(width / width_r),    and so for y, h,

    where x is the centre.

    Args:
      boxes: float32 [..., 4], of positive sides.
      references: float32 [..., 4], of positive sides.
      weights: of dx, dy, dw, dh.

    Returns:
      float32 [..., 4] (dx, dy, dw, dh).

    Source: Ren et al. 2015, Eq. 2.
    """
    centre, size = _centre_and_size(boxes)
    own_centre, own_size = _centre_and_size(references)
    shift = (centre - own_centre) / own_size
    return tf.concat([shift, tf.math.log(size / own_size)], -1) * tf.constant(weights)


def decode(
    differences: tf.Tensor, references: tf.Tensor, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)
) -> tf.Tensor:
    """Invert `encode`; a side grows 62.5-fold at most.

    Args:
      differences: float32 [..., 4] (dx, dy, dw, dh).
      references: float32 [..., 4].
      weights: as of `encode`.

    Returns:
      float32 [..., 4] boxes.
    """
    differences = differences / tf.constant(weights)
    own_centre, own_size = _centre_and_size(references)
    centre = own_centre + differences[..., :2] * own_size
    half = tf.exp(tf.minimum(differences[..., 2:], _MAX_LOG_GROWTH)) * own_size / 2
    return tf.concat([centre - half, centre + half], -1)


def clip(boxes: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    """Cut boxes off at the borders of their images.

    Args:
      boxes: float32 [B, N, 4].
      sizes: float32 [B, 2], height and width of each image in pixels.

    Returns:
      float32 [B, N, 4].
    """
    limits = tf.gather(sizes, [1, 0, 1, 0], axis=1)[:, None]
    return tf.clip_by_value(boxes, 0.0, limits)


def _centre_and_size(boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low
