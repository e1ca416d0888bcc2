"""Hash seed and counter to random bits, the same in eager mode, in graphs and with XLA."""

import tensorflow as tf


def random_bits(seed: int, counters: tf.Tensor) -> tf.Tensor:
    """Take outputs of SplitMix64 by their number; those below 0 are a stream of their own.

    TensorFlow's own generators draw whole tensors, and others with XLA than without.

    Args:
      seed: any integer.
      counters: int64 [...], numbers of the outputs.

    Returns:
      uint64 [...].

    Source: Steele, Lea, Flood 2014, Fast splittable pseudorandom number generators, Figure 16.
    """
    gamma = tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    start = _mixed(tf.constant(seed % 2**64, tf.uint64) + gamma)
    return _mixed(start + gamma * tf.cast(counters, tf.uint64))


def _mixed(x: tf.Tensor) -> tf.Tensor:
    """SplitMix64's hash of uint64 numbers."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(shift, tf.uint64)))
        x *= tf.constant(factor, tf.uint64)
    return x
