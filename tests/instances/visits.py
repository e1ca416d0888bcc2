"""Instance ids and learning rates of many steps, each found at once."""

import functools

import numpy as np
import tensorflow as tf

from pic_tf.data.order import SlidingWindow
from pic_tf.optim.schedules import WarmupCosine


def visits(order: SlidingWindow, steps: int) -> np.ndarray:
    """ids int64 [steps, B / R] of the first steps, in one graph: step by step they take longer
    than training on them.
    """
    return _visits(order, steps).copy()


@functools.cache
def _visits(order, steps):
    numbers = tf.range(steps, dtype=tf.int64)
    return tf.function(lambda: tf.map_fn(order.instance_ids, numbers), autograph=False)().numpy()


def rates_of(schedule: WarmupCosine, steps: int) -> list[float]:
    """Learning rates of the first steps."""
    return schedule(tf.range(steps)).numpy().tolist()
