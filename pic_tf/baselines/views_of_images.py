"""Number of views of each image, on which some methods rely."""

from typing import Any

import tensorflow as tf

_NUMBERS = {1: "one view", 2: "two views of one size"}


def views_of_images(views: Any, instance_ids: tf.Tensor, each: int) -> tf.Tensor:
    """Check that a step has so many views of each image, all of one size.

    Args:
      views: [b n, ...] of the backbone's input, those of an image one after another; or a tuple of
        this one group.
      instance_ids: int64 [b].
      each: n, 1 or 2.

    Returns:
      [b n, ...].

    Raises:
      ValueError: where shapes tell of another number; where only the step tells it,
        tf.errors.InvalidArgumentError at run time.
    """
    expected = f"expected {_NUMBERS[each]} of each image, got"
    groups = tf.nest.flatten(views)
    if len(groups) != 1:
        raise ValueError(f"{expected} groups of {len(groups)} sizes: name crops of one kind")
    number, b = groups[0].shape[0], instance_ids.shape[0]
    if number is not None and b is not None and number != each * b:
        raise ValueError(f"{expected} {number} views of {b} images: change --crops")
    count, ids = tf.shape(groups[0])[0], tf.size(instance_ids)
    check = tf.debugging.Assert(count == each * ids, [expected, count, "views of", ids, "images"])
    with tf.control_dependencies([check]):
        return tf.identity(groups[0])
