"""Blur images kept as planes."""

import functools
import math

import numpy as np
import tensorflow as tf

from pic_tf.data.colour import Planes

_BLOCK = 32  # rows of a plane that are blurred in one product


def gaussian_blur(planes: Planes, sigma: tf.Tensor, on: tf.Tensor, max_sigma: float) -> Planes:
    """Blur by a Gaussian, edges repeated, as products with a banded matrix from both sides.

    out = T x T^T, T_ij = sum of exp(-d^2 / 2 sigma^2) over the taps |d| <= ceil(3 max_sigma) that
    land on j from i, rows normalised. T is taken a block of rows at a time, and of each only where
    it is not 0.

    Args:
      planes: float32 [B, H, W], a channel each.
      sigma: float32 [B], standard deviations in pixels.
      on: bool [B], true for images to blur.
      max_sigma: the largest sigma, which sets the number of taps.

    Returns:
      As many float32 [B, H, W].
    """
    radius, (height, width) = math.ceil(3 * max_sigma), planes[0].shape[1:]
    taps = np.arange(-radius, radius + 1, dtype=np.float32)
    weights = tf.exp(-0.5 * tf.square(taps / sigma[:, None]))
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    weights = tf.where(on[:, None], weights, (taps == 0).astype(np.float32))

    @functools.cache
    def band_of(block: int) -> tf.Tensor:
        # Row i takes block + 2 radius pixels to pixel i of a block, alike for every block.
        band = np.zeros((len(taps), block, block + 2 * radius), np.float32)
        for t in range(len(taps)):
            band[t, np.arange(block), np.arange(block) + t] = 1.0
        return tf.reshape(weights @ band.reshape(len(taps), -1), [-1, block, block + 2 * radius])

    def vertically(plane: tf.Tensor) -> tf.Tensor:
        block = min(_BLOCK, height)
        plane = tf.concat([plane[:, :1]] * radius + [plane] + [plane[:, -1:]] * radius, axis=1)
        blocks = []
        for start in range(0, height, block):
            first = min(start, height - block)  # the last block may reach back into the one before
            part = plane[:, first : first + block + 2 * radius]
            blocks.append((band_of(block) @ part)[:, start - first :])
        return tf.concat(blocks, axis=1)

    def horizontally(plane: tf.Tensor) -> tf.Tensor:
        block = min(_BLOCK, width)
        plane = tf.concat([plane[..., :1]] * radius + [plane] + [plane[..., -1:]] * radius, axis=2)
        blocks = []
        for start in range(0, width, block):
            first = min(start, width - block)
            part = plane[..., first : first + block + 2 * radius]
            blocks.append(tf.matmul(part, band_of(block), transpose_b=True)[..., start - first :])
        return tf.concat(blocks, axis=2)

    return [horizontally(vertically(plane)) for plane in planes]
