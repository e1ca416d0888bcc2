"""Draw the first weights of instances as a function of (seed, instance)."""

import math

import tensorflow as tf

from pic_tf.instances.random_bits import random_bits
from pic_tf.replicas import collectives

INITIAL_STDDEV = 0.01
_BLOCK = 65536  # rows that are drawn together


def initial_rows(instance_ids: tf.Tensor, dim: int, stddev: float, seed: int) -> tf.Tensor:
    """Draw first weights of instances from N(0, stddev^2), by (seed, instance) alone.

    Number j of instance i is Box and Muller's sqrt(-2 log v) cos(2 pi v') with v, v' from output
    i D + j of `random_bits`.

    Args:
      instance_ids: int64 [b].
      dim: D.
      stddev: standard deviation.
      seed: any integer.

    Returns:
      float32 [b, dim].
    """
    bits = random_bits(seed, instance_ids[:, None] * dim + tf.range(1, dim + 1, dtype=tf.int64))
    high = tf.cast(tf.bitwise.right_shift(bits, tf.constant(40, tf.uint64)), tf.int32)
    low = tf.cast(tf.bitwise.bitwise_and(bits, tf.constant(2**24 - 1, tf.uint64)), tf.int32)
    radius = tf.sqrt(-2 * tf.math.log((tf.cast(high, tf.float32) + 1) * 2**-24))
    return stddev * radius * tf.cos(2 * math.pi * 2**-24 * tf.cast(low, tf.float32))


def initialise(variable: tf.Variable, num_rows: int, stddev: float, seed: int) -> None:
    """Give each replica the first weights of its own instances.

    Args:
      variable: float32 [at least num_rows, D], one a replica; row l of replica r is that of
        instance l R + r.
      num_rows: rows to set.
      stddev: standard deviation of the weights.
      seed: any integer.
    """
    strategy, count, dim = tf.distribute.get_strategy(), collectives.count(), variable.shape[1]

    @tf.function(autograph=False, reduce_retracing=True)
    def fill(rows: tf.Tensor) -> None:
        def on_replica() -> None:
            instance_ids = rows * count + collectives.index()
            values = initial_rows(instance_ids, dim, stddev, seed)
            collectives.scatter_rows(variable, rows, values)

        strategy.run(on_replica)

    for first in range(0, num_rows, _BLOCK):  # a table need not be in memory twice
        fill(tf.range(first, min(first + _BLOCK, num_rows), dtype=tf.int64))
