"""Store of the instance rows that are not among the recent ones."""

import numpy as np
import tensorflow as tf

from pic_tf.instances.first_weights import initial_rows
from pic_tf.replicas import collectives

EMPTY = np.int64(-1)  # stands for the id of no instance, and for the number of no row
BEFORE_FIRST_UPDATE = np.int64(-1)  # stamp of a row that is not as it began
_NO_ROW = np.iinfo(np.int64).max  # sorts behind all row numbers


class Store(tf.Module):
    """Rows in device memory: instance weights, their momentum, and the step they left the ring.

    A row is untouched while it rests; its reader catches it up from its stamp. Row l of replica r
    is that of instance l R + r. A row that was never written has stamp 0 and the first weights of
    its instance, which follow from the seed. One that was written before any update, since
    another optimizer had moved it, has stamp -1.

    The store has a location for each row of the replica, or, paged, for as many as the sliding
    window needs; other rows come as the window moves (`instances.paging.pager.Pager`).

    Args:
      num_locations: n, rows of a replica that are here.
      dim: D.
      stddev: standard deviation of first weights.
      seed: of first weights.
      paged: whether rows come and go.

    Attributes, of each replica:
      weights: float32 [n + 1, D], w; the last row takes values written to no row.
      momentum: float32 [n + 1, D], u.
      stamp: int64 [n + 1], updates applied before the row was last written, initially 0.
      rows: int64 [n], paged only: the rows that are here, in ascending order.
      locations: int64 [n], paged only: and where.
    """

    def __init__(self, num_locations: int, dim: int, stddev: float, seed: int, paged: bool = False):
        super().__init__(name="store")
        self.num_locations, self.paged = num_locations, paged
        self._stddev, self._seed, self._replicas = stddev, seed, collectives.count()
        n, local = num_locations, collectives.local_variable
        self.weights = local(lambda: tf.zeros([n + 1, dim]), "weights")
        self.momentum = local(lambda: tf.zeros([n + 1, dim]), "momentum")
        self.stamp = local(lambda: tf.zeros([n + 1], tf.int64), "stamp")
        if paged:
            self.rows = local(lambda: tf.fill([n], _NO_ROW), "rows")
            self.locations = local(lambda: tf.range(n, dtype=tf.int64), "locations")

    def read(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Read rows int64 [b]; of -1, and of rows that are not here, anything.

        Returns:
          (weights float32 [b, D], momentum float32 [b, D], stamp int64 [b]).
        """
        locations = self._locations(rows)
        weights, momentum, stamp = (
            collectives.gather_rows(variable, locations)
            for variable in (self.weights, self.momentum, self.stamp)
        )
        # Drawn even after the first sweep, when none is new: a condition lets an accelerator wait
        # for its host, which takes longer (0.15 of 1.1 ms a step without backbone on an H200).
        first = self.first_weights(rows * self._replicas + collectives.index())
        return tf.where((stamp == 0)[:, None], first, weights), momentum, stamp

    def first_weights(self, instance_ids: tf.Tensor) -> tf.Tensor:
        """Draw the first weights, float32 [b, D], of instances int64 [b]."""
        return initial_rows(instance_ids, self.weights.shape[1], self._stddev, self._seed)

    def write(
        self, rows: tf.Tensor, weights: tf.Tensor, momentum: tf.Tensor, stamp: tf.Tensor
    ) -> None:
        """Put rows to rest.

        Args:
          rows: int64 [b], different from each other; -1, and a row that is not here, writes
            nothing.
          weights: float32 [b, D].
          momentum: float32 [b, D].
          stamp: int64 [b], or a scalar for all: updates applied so far; 0 becomes -1.
        """
        locations = self._locations(rows)
        stamp = tf.where(stamp == 0, BEFORE_FIRST_UPDATE, stamp)
        stamps = tf.broadcast_to(stamp, tf.shape(rows))
        collectives.scatter_rows(self.weights, locations, weights)
        collectives.scatter_rows(self.momentum, locations, momentum)
        collectives.scatter_rows(self.stamp, locations, stamps)

    def has(self, rows: tf.Tensor) -> tf.Tensor:
        """Tell which rows int64 [b] are here, bool [b]."""
        return self._locations(rows) < self.num_locations

    def _locations(self, rows: tf.Tensor) -> tf.Tensor:
        nowhere = tf.constant(self.num_locations, tf.int64)
        if not self.paged:
            return tf.where(rows < 0, nowhere, rows)
        here = tf.identity(self.rows)
        rank = tf.minimum(tf.searchsorted(here, rows, out_type=tf.int64), self.num_locations - 1)
        locations = collectives.gather_rows(self.locations, rank)
        return tf.where(tf.gather(here, rank) == rows, locations, nowhere)
