"""Norm floor of rows that return to the ring."""

import math
from typing import NamedTuple

import tensorflow as tf

from pic_tf.instances.first_weights import INITIAL_STDDEV


class Lifted(NamedTuple):
    """Rows [b] after the floor.

    Attributes:
      weights: float32 [b, D], w.
      momentum: float32 [b, D], u.
      norm: float32 [b], |w| before the floor.
      short: bool [b], whether the floor lifted the row.
    """

    weights: tf.Tensor
    momentum: tf.Tensor
    norm: tf.Tensor
    short: tf.Tensor


def default_floor(embedding_dim: int, similarity: str) -> float:
    """Default norm floor: 0.01 sqrt(D), the norm of first weights; 0, none, for dot products."""
    return INITIAL_STDDEV * math.sqrt(embedding_dim) if similarity == "cosine" else 0.0


def lift(weights: tf.Tensor, momentum: tf.Tensor, floor: float) -> Lifted:
    """Rescale rows with 0 < |w| < floor to that norm, momentum with them.

    Args:
      weights: float [b, D], w.
      momentum: float [b, D], u.
      floor: the smallest norm; 0 lifts no row.

    Returns:
      The rows, and what happened to them.
    """
    weights, momentum = tf.cast(weights, tf.float64), tf.cast(momentum, tf.float64)
    # Relative to the largest number of a row: the squares of a row shorter than 1e-154 are 0 in
    # float64 too.
    largest = tf.reduce_max(tf.abs(weights), axis=1)
    norm = largest * tf.norm(tf.math.divide_no_nan(weights, largest[:, None]), axis=1)
    short = (norm < floor) & (norm > 0)
    ratio = tf.math.divide_no_nan(tf.constant(floor, tf.float64), norm)
    factor = tf.where(short, ratio, 1.0)[:, None]
    return Lifted(
        tf.cast(weights * factor, tf.float32),
        tf.cast(momentum * factor, tf.float32),
        tf.cast(norm, tf.float32),
        short,
    )
