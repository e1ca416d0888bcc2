"""Measure over an epoch the effect of steps on views and rows."""

import numpy as np
import tensorflow as tf
import tf_keras as keras

from pic_tf.replicas import collectives


class ViewMetrics(tf.Module):
    """Means and sums over the views of an epoch, of all replicas.

    Attributes:
      loss: mean over views, but for those of steps whose loss or gradient is not finite.
      accuracy: share of views whose own image came first; with rows, of those that move them.
      left_out: how many images had weight 0.
    """

    def __init__(self):
        super().__init__(name="step_metrics")
        self.loss = MeanOrNaN("loss")
        self.accuracy = MeanOrNaN("accuracy")
        self.left_out = keras.metrics.Sum("left_out")

    @property
    def numbers(self) -> list[keras.metrics.Metric]:
        """Metrics of one number each."""
        return [self.loss, self.accuracy, self.left_out]

    @property
    def histograms(self) -> list[keras.metrics.Metric]:
        """Metrics of many numbers."""
        return []

    def update_views(
        self, losses: tf.Tensor, weights: tf.Tensor, correct: tf.Tensor, counted: tf.Tensor
    ) -> None:
        """Take in the views of a step.

        Args:
          losses: float32 [n].
          weights: float32 [n], 0 for views without loss.
          correct: bool [m], of the first m views.
          counted: bool scalar, False for a step that is not finite, of which nothing counts.
        """
        weights = tf.cast(counted, tf.float32) * weights
        self.loss.update_state(tf.where(counted, losses, 0.0), sample_weight=weights)
        self.accuracy.update_state(correct, sample_weight=weights[: tf.size(correct)])

    def update_images(self, weights: tf.Tensor) -> None:
        """Take in the weights, float32 [b], of the images of a step."""
        self.left_out.update_state(tf.cast(weights == 0, tf.float32))


class StepMetrics(ViewMetrics):
    """Means, sums and histograms over an epoch of a model with rows, of all replicas.

    Attributes:
      row_norm: mean norm of the rows that came from the store, before the floor.
        A mean over nothing is NaN.
      live_rows: mean number of rows in the soft-max.
      floored: how many rows the norm floor lifted.
      row_norms: `LogHistogram` of the norms behind `row_norm`.
      row_gaps: `LogHistogram` of steps between a row's leaving and returning.
    """

    def __init__(self):
        super().__init__()
        self.row_norm = MeanOrNaN("row_norm")
        self.live_rows = keras.metrics.Mean("live_rows")
        self.floored = keras.metrics.Sum("floored")
        self.row_norms = LogHistogram(1e-12, 1e12, 8, "row_norms")
        self.row_gaps = LogHistogram(1.0, 1e9, 4, "row_gaps")

    @property
    def numbers(self) -> list[keras.metrics.Metric]:
        """Metrics of one number each."""
        of_views = [self.loss, self.accuracy]
        return [*of_views, self.row_norm, self.live_rows, self.floored, self.left_out]

    @property
    def histograms(self) -> list[keras.metrics.Metric]:
        """Metrics of many numbers."""
        return [self.row_norms, self.row_gaps]

    @property
    def numbers_where_no_row_rests(self) -> list[keras.metrics.Metric]:
        """Those that have something to report where K = N."""
        return [self.loss, self.accuracy, self.live_rows, self.left_out]

    def update_rows(self, moved: dict[str, tf.Tensor], live: tf.Tensor) -> None:
        """Take in the rows of a step.

        Args:
          moved: what happened to rows, from `InstanceClassifier.admit`.
          live: bool [K / R], the slots of this replica's ring that hold a row.
        """
        fetched = tf.cast(moved["fetched"], tf.float32)
        self.row_norm.update_state(moved["norm"], sample_weight=fetched)
        self.live_rows.update_state(tf.reduce_sum(tf.cast(live, tf.float32)) * collectives.count())
        self.floored.update_state(tf.cast(moved["floored"], tf.float32))
        self.row_norms.update_state(moved["norm"], moved["fetched"])
        self.row_gaps.update_state(moved["gap"], moved["returning"])


@keras.utils.register_keras_serializable("pic_tf")
class MeanOrNaN(keras.metrics.Mean):
    """Mean that is NaN, not Keras' 0, as long as nothing counts."""

    @tf.autograph.experimental.do_not_convert
    def result(self) -> tf.Tensor:
        return self.total / self.count


@keras.utils.register_keras_serializable("pic_tf")
class LogHistogram(keras.metrics.Metric):
    """Counts of values of many magnitudes, in bins with edges a constant factor apart.

    Bin 0 counts values below the first edge, bin i those in [edges[i - 1], edges[i]), the last one
    the rest.

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
        self._range = {"low": low, "high": high, "per_decade": per_decade}
        decades = np.log10(high / low)
        self.edges = low * 10 ** np.linspace(0, decades, round(decades * per_decade) + 1)
        bins = len(self.edges) + 1
        # float32 would stop counting at 2^24.
        self.counts = self.add_weight("counts", [bins], initializer="zeros", dtype=tf.float64)

    @tf.autograph.experimental.do_not_convert
    def update_state(self, values: tf.Tensor, counted: tf.Tensor) -> None:
        """Count numbers [b] where `counted`, bool [b], is true; NaN counts in the last bin."""
        values, counted = tf.cast(values, tf.float64), tf.cast(counted, tf.float64)
        last = len(self.edges)
        bins = tf.searchsorted(tf.constant(self.edges), values, side="right")
        bins = tf.where(tf.math.is_nan(values), last, bins)
        self.counts.assign_add(tf.math.unsorted_segment_sum(counted, bins, last + 1))

    def reset_state(self) -> None:
        """Begin to count anew."""
        self.counts.assign(tf.zeros_like(self.counts))

    @tf.autograph.experimental.do_not_convert
    def result(self) -> tf.Tensor:
        """Give float64 [n + 1] counts."""
        return tf.identity(self.counts)

    def get_config(self) -> dict:
        return {"name": self.name, **self._range}


def buckets(edges: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Give a histogram the form that TensorBoard draws.

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
