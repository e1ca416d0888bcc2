"""Visit images step by step, with random numbers, as a pure function of (seed, step)."""

import tensorflow as tf

from pic_tf.data.order import SlidingWindow


def visits(
    order: SlidingWindow, draws: int, seed: int, start_step: int, stop_step: int
) -> tf.data.Dataset:
    """List the images that the steps start_step ... stop_step - 1 visit in this replica.

    Args:
      order: the images of each step.
      draws: D, random numbers for each visit.
      seed: seed of the random numbers.
      start_step: first step.
      stop_step: one past the last step.

    Returns:
      Dataset of (instance_id int64, random float32 [D] even in [0, 1), step int64), one visit each.
    """
    batch = order.batch_size // order.num_replicas

    def of_step(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        key = tf.stack([tf.constant(seed, tf.int64), step * order.num_replicas + order.replica])
        random = tf.random.stateless_uniform([batch, draws], key)
        return order.instance_ids(step), random, tf.repeat(step, batch)

    return tf.data.Dataset.range(start_step, stop_step).map(of_step).unbatch()
