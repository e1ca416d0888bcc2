"""Count values that span orders of magnitude, in graph."""

import numpy as np
import tensorflow as tf
import tf_keras as keras


class LogHistogram(keras.metrics.Metric):
    """Counts of values in bins whose edges grow by a constant factor, over an epoch and all replicas.

    Bin 0 holds what is below the first edge, bin i what lies in [edges[i - 1], edges[i]), the last one the rest.

    Args:
      low: the first edge, > 0.
      high: where the edges end.
      per_decade: edges a factor of 10.
      name: of the metric.

    Attributes:
      edges: float64 [n].
    """

    def __init__(self, low: float, high: float, per_decade: int, name: str):
        super().__init__(name)
        decades = np.log10(high / low)
        self.edges = low * 10 ** np.linspace(0, decades, round(decades * per_decade) + 1)
        # float32 would stop counting at 2^24.
        self.counts = self.add_weight("counts", [len(self.edges) + 1], initializer="zeros", dtype=tf.float64)

    def update_state(self, values: tf.Tensor, counted: tf.Tensor) -> None:
        """Count numbers [b] where `counted` bool [b] says so; one that is not a number counts in the last bin."""
        bins = tf.searchsorted(tf.constant(self.edges), tf.cast(values, tf.float64), side="right")
        bins = tf.where(tf.math.is_nan(tf.cast(values, tf.float64)), len(self.edges), bins)
        self.counts.assign_add(tf.math.unsorted_segment_sum(tf.cast(counted, tf.float64), bins, len(self.edges) + 1))

    def reset_state(self) -> None:
        """Begin to count anew."""
        self.counts.assign(tf.zeros_like(self.counts))

    def result(self) -> tf.Tensor:
        """float64 [n + 1] counts."""
        return tf.identity(self.counts)


def buckets(edges: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """What TensorBoard draws a histogram from.

    Args:
      edges: [n] as `LogHistogram` has them.
      counts: [n + 1].

    Returns:
      float64 [m, 3] of (left, right, count), from the first to the last bin that is not empty.
    """
    ends = np.concatenate([[0.0], edges, [edges[-1] * edges[-1] / edges[-2]]])
    used = np.flatnonzero(counts)
    span = slice(used[0], used[-1] + 1) if len(used) else slice(0, 0)
    return np.stack([ends[:-1], ends[1:], counts], axis=1)[span]
