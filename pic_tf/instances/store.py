"""Where instance rows rest while they are not among the recent ones."""

import tensorflow as tf

_STREAM = -(2**30)  # crops and order draw from (seed, step) and (seed, -1 - replica)


class DeviceStore(tf.Module):
    """All rows in device memory: instance weights, their momentum, and the step they left the ring.

    A row is untouched while it rests; who reads it catches it up from its stamp.

    Args:
      num_rows: N rows.
      dim: D.
      stddev: standard deviation of the initial weights, whose values depend on (seed, row) alone.
      seed: any integer.

    Attributes:
      weights: float32 [N + 1, D], w; the last row takes what is written to no row.
      momentum: float32 [N + 1, D], u, initially 0.
      stamp: int64 [N + 1], updates applied before the row was last written, initially 0.
    """

    def __init__(self, num_rows: int, dim: int, stddev: float, seed: int):
        super().__init__(name="store")
        self.num_rows = num_rows
        self.weights = _variable(lambda: initial_rows(num_rows + 1, dim, stddev, seed), "weights")
        self.momentum = _variable(lambda: tf.zeros([num_rows + 1, dim]), "momentum")
        self.stamp = _variable(lambda: tf.zeros([num_rows + 1], tf.int64), "stamp")

    def read(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """(weights [b, D], momentum [b, D], stamp [b]) of int64 [b] rows, each in [0, N)."""
        return tuple(tf.gather(variable, rows) for variable in (self.weights, self.momentum, self.stamp))

    def write(self, rows: tf.Tensor, weights: tf.Tensor, momentum: tf.Tensor, stamp: tf.Tensor) -> None:
        """Put rows to rest.

        Args:
          rows: int64 [b], different from each other; -1 writes nothing.
          weights: float32 [b, D].
          momentum: float32 [b, D].
          stamp: int64 scalar, updates applied so far.
        """
        rows = tf.where(rows < 0, tf.constant(self.num_rows, tf.int64), rows)
        stamps = tf.fill(tf.shape(rows), stamp)
        for variable, values in ((self.weights, weights), (self.momentum, momentum), (self.stamp, stamps)):
            scatter_rows(variable, rows, values)


@tf.function(reduce_retracing=True)  # eagerly it would hold three tables at once
def initial_rows(num_rows: int, dim: int, stddev: float, seed: int) -> tf.Tensor:
    """float32 [num_rows, dim] from N(0, stddev^2); row i is the same for every num_rows > i."""
    return stddev * tf.random.stateless_normal([num_rows, dim], [seed, _STREAM])


def scatter_rows(variable: tf.Variable, rows: tf.Tensor, values: tf.Tensor) -> None:
    """variable[rows[i]] <- values[i] in place."""
    # The op itself: `Variable.scatter_update` refuses variables that each replica keeps for itself.
    tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=rows, updates=values)


def _variable(initial_value, name: str) -> tf.Variable:
    return tf.Variable(initial_value, trainable=False, name=name)
