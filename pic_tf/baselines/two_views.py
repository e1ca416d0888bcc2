"""Two views of each image, which some methods compare with each other."""

from typing import Any

import tensorflow as tf


def two_views(views: Any, instance_ids: tf.Tensor) -> tf.Tensor:
    """Check that a step has two views of one size of each image.

    Args:
      views: [2b, ...] of the backbone's input, the two of an image one after the other; or a tuple
        of this one group.
      instance_ids: int64 [b].

    Returns:
      [2b, ...].

    Raises:
      ValueError: where shapes tell of another number; where only the step tells it,
        tf.errors.InvalidArgumentError at run time.
    """
    expected = "expected two views of one size of each image, got"
    groups = tf.nest.flatten(views)
    if len(groups) != 1:
        raise ValueError(f"{expected} groups of {len(groups)} sizes")
    number, b = groups[0].shape[0], instance_ids.shape[0]
    if number is not None and b is not None and number != 2 * b:
        raise ValueError(f"{expected} {number} views of {b} images: name two crops of one kind")
    count, ids = tf.shape(groups[0])[0], tf.size(instance_ids)
    check = tf.debugging.Assert(count == 2 * ids, [expected, count, "views of", ids, "images"])
    with tf.control_dependencies([check]):
        return tf.identity(groups[0])
