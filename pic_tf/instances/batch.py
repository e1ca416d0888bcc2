"""Name the parts of a batch."""

from typing import Any, NamedTuple

import tensorflow as tf


class Batch(NamedTuple):
    """A replica's share of a batch, b = B / R images.

    Attributes:
      images: what `augment` takes, or the backbone: [b n, ...], the n views of each image one after
        another, or a tuple of such groups of other sizes.
      instance_ids: int64 [b].
      weights: float32 [b]. An image of weight 0 counts as not visited: its views have no loss and
        its row does not come to the ring.
      labelled: (images as the backbone takes them [p, ...], labels [p], weights [p]) for the probe;
        None without one.
    """

    images: Any
    instance_ids: tf.Tensor
    weights: tf.Tensor
    labelled: tuple | None


def unpack(data: Any, probed: bool) -> Batch:
    """Name the parts of a batch.

    Args:
      data: (images, instance_ids), (images, instance_ids, weights) or, with a probe,
        (images, instance_ids, weights, labelled).
      probed: whether there is a probe.

    Returns:
      The parts, with weights of 1 where there are none.

    Raises:
      ValueError: for anything else.
    """
    lengths = (4,) if probed else (2, 3)
    if not isinstance(data, tuple) or len(data) not in lengths:
        got = f"a tuple of {len(data)}" if isinstance(data, tuple) else type(data).__name__
        expected = "(images, instance_ids) or (images, instance_ids, weights)"
        if probed:
            expected = "(images, instance_ids, weights, labelled images) for a model with a probe"
        raise ValueError(
            f"expected batches of {expected}, got {got}: number your images from 0 to N - 1"
        )
    images, instance_ids = data[0], tf.cast(data[1], tf.int64)
    weights = data[2] if len(data) > 2 else None
    weights = tf.ones_like(instance_ids) if weights is None else weights
    return Batch(images, instance_ids, tf.cast(weights, tf.float32), data[3] if probed else None)
