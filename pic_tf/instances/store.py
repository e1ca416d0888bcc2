"""Where instance rows rest while they are not among the recent ones."""

import math

import numpy as np
import tensorflow as tf

from pic_tf import replicas

_BLOCK = 65536  # rows that are drawn together
_NOBODY = np.iinfo(np.int64).max  # row number of an empty place


class Store(tf.Module):
    """Rows in device memory: instance weights, their momentum, and the step they left the ring.

    A row is untouched while it rests; who reads it catches it up from its stamp. Row l of replica r is that of
    instance l R + r. A row that was never written has stamp 0 and the first weights of its instance, which follow
    from the seed.

    It has a place for each row of the replica, or, paged, for as many as the sliding window needs; which rows these
    are changes as the window moves (`instances.pager.Pager`).

    Args:
      num_places: n, rows of a replica that are here.
      dim: D.
      stddev: standard deviation of first weights.
      seed: of first weights.
      paged: whether rows come and go.

    Attributes, of each replica:
      weights: float32 [n + 1, D], w; the last row takes what is written to no row.
      momentum: float32 [n + 1, D], u.
      stamp: int64 [n + 1], updates applied before the row was last written, initially 0.
      rows: int64 [n], paged only: the rows that are here, in ascending order.
      places: int64 [n], paged only: and where.
    """

    def __init__(self, num_places: int, dim: int, stddev: float, seed: int, paged: bool = False):
        super().__init__(name="store")
        self.num_places, self.paged = num_places, paged
        self._stddev, self._seed, self._replicas = stddev, seed, replicas.count()
        self.weights = replicas.local_variable(lambda: tf.zeros([num_places + 1, dim]), "weights")
        self.momentum = replicas.local_variable(lambda: tf.zeros([num_places + 1, dim]), "momentum")
        self.stamp = replicas.local_variable(lambda: tf.zeros([num_places + 1], tf.int64), "stamp")
        if paged:
            self.rows = replicas.local_variable(lambda: tf.fill([num_places], _NOBODY), "rows")
            self.places = replicas.local_variable(lambda: tf.range(num_places, dtype=tf.int64), "places")

    def read(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """(weights [b, D], momentum [b, D], stamp [b]) of int64 [b] rows; of -1, and of rows not here, anything."""
        places = self._places(rows)
        weights, momentum, stamp = (
            replicas.gather_rows(variable, places) for variable in (self.weights, self.momentum, self.stamp)
        )
        new, instance_ids = stamp == 0, rows * self._replicas + replicas.index()

        def with_new() -> tf.Tensor:
            return tf.where(new[:, None], self.first_weights(instance_ids), weights)

        # After the first sweep over all instances there are none.
        return tf.cond(tf.reduce_any(new), with_new, lambda: weights), momentum, stamp

    def first_weights(self, instance_ids: tf.Tensor) -> tf.Tensor:
        """float32 [b, D], what instances int64 [b] begin with."""
        return initial_rows(instance_ids, self.weights.shape[1], self._stddev, self._seed)

    def write(self, rows: tf.Tensor, weights: tf.Tensor, momentum: tf.Tensor, stamp: tf.Tensor) -> None:
        """Put rows to rest.

        Args:
          rows: int64 [b], different from each other; -1, and a row that is not here, writes nothing.
          weights: float32 [b, D].
          momentum: float32 [b, D].
          stamp: int64 [b], or a scalar for all: updates applied so far.
        """
        places = self._places(rows)
        stamps = tf.broadcast_to(stamp, tf.shape(rows))
        for variable, values in ((self.weights, weights), (self.momentum, momentum), (self.stamp, stamps)):
            replicas.scatter_rows(variable, places, values)

    def has(self, rows: tf.Tensor) -> tf.Tensor:
        """bool [b], whether rows int64 [b] are here."""
        return self._places(rows) < self.num_places

    def _places(self, rows: tf.Tensor) -> tf.Tensor:
        nowhere = tf.constant(self.num_places, tf.int64)
        if not self.paged:
            return tf.where(rows < 0, nowhere, rows)
        here = tf.identity(self.rows)
        rank = tf.minimum(tf.searchsorted(here, rows, out_type=tf.int64), self.num_places - 1)
        return tf.where(tf.gather(here, rank) == rows, replicas.gather_rows(self.places, rank), nowhere)


def initial_rows(instance_ids: tf.Tensor, dim: int, stddev: float, seed: int) -> tf.Tensor:
    """First weights of any instances, from N(0, stddev^2): a function of (seed, instance) alone.

    Number j of instance i is Box and Muller's sqrt(-2 log v) cos(2 pi v') with v, v' from output i D + j of SplitMix64.
    TensorFlow's own generators draw whole tensors; a row of one would cost an operation.

    Args:
      instance_ids: int64 [b].
      dim: D.
      stddev: standard deviation.
      seed: any integer.

    Returns:
      float32 [b, dim].

    Source: Steele, Lea, Flood 2014, Fast splittable pseudorandom number generators, Figure 16.
    """
    gamma = tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    start = _mixed(tf.constant(seed % 2**64, tf.uint64) + gamma)
    counter = tf.cast(instance_ids[:, None] * dim + tf.range(1, dim + 1, dtype=tf.int64), tf.uint64)
    bits = _mixed(start + gamma * counter)
    high = tf.cast(tf.bitwise.right_shift(bits, tf.constant(40, tf.uint64)), tf.int32)
    low = tf.cast(tf.bitwise.bitwise_and(bits, tf.constant(2**24 - 1, tf.uint64)), tf.int32)
    radius = tf.sqrt(-2 * tf.math.log((tf.cast(high, tf.float32) + 1) * 2**-24))
    return stddev * radius * tf.cos(2 * math.pi * 2**-24 * tf.cast(low, tf.float32))


def _mixed(x: tf.Tensor) -> tf.Tensor:
    """SplitMix64's hash of uint64 numbers."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(shift, tf.uint64)))
        x *= tf.constant(factor, tf.uint64)
    return x


def initialise(variable: tf.Variable, num_rows: int, stddev: float, seed: int) -> None:
    """Give each replica the first weights of its own instances.

    Args:
      variable: float32 [at least num_rows, D], one a replica; row l of replica r is instance l R + r.
      num_rows: rows to set.
      stddev: standard deviation of the weights.
      seed: any integer.
    """
    strategy, count, dim = tf.distribute.get_strategy(), replicas.count(), variable.shape[1]

    @tf.function(reduce_retracing=True)
    def fill(rows: tf.Tensor) -> None:
        def on_replica() -> None:
            replicas.scatter_rows(variable, rows, initial_rows(rows * count + replicas.index(), dim, stddev, seed))

        strategy.run(on_replica)

    for first in range(0, num_rows, _BLOCK):  # a table need not be in memory twice
        fill(tf.range(first, min(first + _BLOCK, num_rows), dtype=tf.int64))
