"""Where instance rows rest while they are not among the recent ones."""

import tensorflow as tf

from pic_tf import replicas

_STREAM = -(2**30)  # crops and order draw from (seed, step) and (seed, -1 - replica)
_BLOCK = 1024  # rows that are drawn together


class DeviceStore(tf.Module):
    """All rows in device memory: instance weights, their momentum, and the step they left the ring.

    A row is untouched while it rests; who reads it catches it up from its stamp. Row l of replica r
    is that of instance l R + r.

    Args:
      num_rows: n, rows of a replica.
      dim: D.

    Attributes:
      weights: float32 [n + 1, D], w, initially 0; the last row takes what is written to no row.
      momentum: float32 [n + 1, D], u, initially 0.
      stamp: int64 [n + 1], updates applied before the row was last written, initially 0.
    """

    def __init__(self, num_rows: int, dim: int):
        super().__init__(name="store")
        self.num_rows = num_rows
        self.weights = replicas.local_variable(lambda: tf.zeros([num_rows + 1, dim]), "weights")
        self.momentum = replicas.local_variable(lambda: tf.zeros([num_rows + 1, dim]), "momentum")
        self.stamp = replicas.local_variable(lambda: tf.zeros([num_rows + 1], tf.int64), "stamp")

    def read(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """(weights [b, D], momentum [b, D], stamp [b]) of int64 [b] rows, each in [0, n)."""
        return tuple(replicas.gather_rows(variable, rows) for variable in (self.weights, self.momentum, self.stamp))

    def write(self, rows: tf.Tensor, weights: tf.Tensor, momentum: tf.Tensor, stamp: tf.Tensor) -> None:
        """Put rows to rest.

        Args:
          rows: int64 [b], different from each other; -1 writes nothing.
          weights: float32 [b, D].
          momentum: float32 [b, D].
          stamp: int64 [b], or a scalar for all: updates applied so far.
        """
        rows = tf.where(rows < 0, tf.constant(self.num_rows, tf.int64), rows)
        stamps = tf.broadcast_to(stamp, tf.shape(rows))
        for variable, values in ((self.weights, weights), (self.momentum, momentum), (self.stamp, stamps)):
            replicas.scatter_rows(variable, rows, values)


def initial_rows(block: tf.Tensor, dim: int, stddev: float, seed: int) -> tf.Tensor:
    """float32 [1024, dim] from N(0, stddev^2), first weights of instances 1024 block ... 1024 block + 1023."""
    return stddev * tf.random.stateless_normal([_BLOCK, dim], tf.stack([seed, _STREAM - block]))


def initialise_rows(variable: tf.Variable, num_rows: int, stddev: float, seed: int) -> None:
    """Give each replica the first weights of its own instances, whose values depend on (seed, instance) alone.

    Args:
      variable: float32 [at least num_rows, D], one a replica; row l of replica r is instance l R + r.
      num_rows: rows to set.
      stddev: standard deviation of the weights.
      seed: any integer.
    """
    strategy, count, dim = tf.distribute.get_strategy(), replicas.count(), variable.shape[1]

    @tf.function(reduce_retracing=True)
    def fill(block: tf.Tensor, rows: int) -> None:
        """1024 rows of each replica at once: a table need not be in memory twice."""

        def on_replica() -> None:
            blocks = block * count + tf.range(count)
            drawn = tf.map_fn(lambda b: initial_rows(b, dim, stddev, seed), blocks, fn_output_signature=tf.float32)
            own = tf.gather(tf.reshape(drawn, [_BLOCK, count, dim]), replicas.index(), axis=1)
            targets = tf.cast(block, tf.int64) * _BLOCK + tf.range(rows, dtype=tf.int64)
            replicas.scatter_rows(variable, targets, own[:rows])

        strategy.run(on_replica)

    for block in range(-(-num_rows // _BLOCK)):
        fill(tf.constant(block), min(_BLOCK, num_rows - block * _BLOCK))
