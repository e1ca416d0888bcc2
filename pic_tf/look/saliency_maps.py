"""Saliency maps of a network, and how far those of two networks agree (Section 5 of the paper)."""

import numpy as np
import tensorflow as tf


def saliency(maps: tf.Tensor) -> tf.Tensor:
    """Share the length of a feature map out among its locations: |f_xy| / sum_xy |f_xy|.

    Args:
      maps: float [b, h, w, C], the last feature map of a network.

    Returns:
      float32 [b, h, w], each of sum 1; the same everywhere for a map of zeros.

    Source: the paper (https://arxiv.org/abs/2006.14618), Section 5.
    """
    lengths = tf.norm(tf.cast(maps, tf.float32), axis=-1)
    sums = tf.reduce_sum(lengths, [1, 2], keepdims=True)
    even = tf.ones_like(lengths) / tf.cast(tf.size(lengths[0]), tf.float32)
    return tf.where(sums > 0, tf.math.divide_no_nan(lengths, sums), even)


def similarity(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Sum the minima of two saliency maps: sum_xy min(p_xy, q_xy).

    Args:
      one: float [n, h, w], each of sum 1.
      other: of the same shape.

    Returns:
      float [n], from 0 for maps that share no location to 1 for equal ones.
    """
    return np.minimum(one, other).sum((1, 2))


def random_maps(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Draw maps of random numbers, even in [0, 1), brought to sum 1: float64 [n, h, w]."""
    drawn = np.random.default_rng(seed).random(shape)
    return drawn / drawn.sum((1, 2), keepdims=True)


def accuracy_by_similarity(
    similarities: np.ndarray, right: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the accuracy of images of like similarity.

    Args:
      similarities: float [n].
      right: bool [n], true for images of which the class was told.
      bins: number of groups of as many images each (to one), from the least similar on; no more
        than there are images.

    Returns:
      (float64 [bins] mean similarity, float64 [bins] accuracy).
    """
    groups = np.array_split(np.argsort(similarities, kind="stable"), min(bins, len(right)))
    means = [(similarities[group].mean(), right[group].mean()) for group in groups]
    return tuple(np.array(means, np.float64).T)
