"""Name the parts of a batch, and see that they go together."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf

_SENTENCE = re.compile(r"assertion failed: (\[expected .*)")


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

    def checks(self, augmented: bool) -> list[tf.Operation]:
        """Assertions on weights and, but for those that are `augmented` first, on views."""
        right = tf.reduce_all((self.weights >= 0) & tf.math.is_finite(self.weights))
        number, count = tf.size(self.weights), tf.size(self.instance_ids)
        expected = "expected weights >= 0 of images, got"
        as_many = "expected as many weights as instance ids, got"
        checks = [
            tf.debugging.Assert(right, [expected, tf.reduce_min(self.weights)]),
            tf.debugging.Assert(number == count, [as_many, number, "and", count]),
        ]
        return checks if augmented else checks + check_views(self.images, self.instance_ids)


def check(data: Any, probed: bool) -> None:
    """Check what types and shapes tell of a batch.

    Args:
      data: a batch as `unpack` takes it, or its `tf.TypeSpec`.
      probed: whether there is a probe.

    Raises:
      ValueError: for other parts, ids that are no integers, or parts of other shapes.
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
    ids, weights = data[1], data[2] if len(data) > 2 else None
    if not hasattr(ids, "dtype") or not hasattr(ids, "shape"):
        raise ValueError(f"expected instance ids in a tensor, got {type(ids).__name__}")
    dtype, shape = tf.as_dtype(ids.dtype), tf.TensorShape(ids.shape)
    if not dtype.is_integer:
        raise ValueError(
            f"expected instance ids that are integers, got {dtype.name}, which would be cut to "
            "them: number your images from 0 to N - 1"
        )
    if shape.rank not in (None, 1):
        raise ValueError(f"expected instance ids of shape [images of the batch], got {shape}")
    if weights is not None and not shape.is_compatible_with(weights.shape):
        raise ValueError(
            f"expected as many weights as instance ids, got {weights.shape} and {shape}"
        )


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
    check(data, probed)
    images, instance_ids = data[0], tf.cast(data[1], tf.int64)
    weights = data[2] if len(data) > 2 else None
    weights = tf.ones_like(instance_ids) if weights is None else weights
    return Batch(images, instance_ids, tf.cast(weights, tf.float32), data[3] if probed else None)


def check_views(views: Any, instance_ids: tf.Tensor) -> list[tf.Operation]:
    """Check that there is a whole number of views for each id.

    Args:
      views: [b n, ...], or groups of such views.
      instance_ids: int64 [b].

    Returns:
      Assertions, of what shapes do not tell before the step.

    Raises:
      ValueError: where they tell that there is not.
    """
    checks = []
    for group in tf.nest.flatten(views):
        shape, b = tf.TensorShape(group.shape), instance_ids.shape[0]
        expected = "expected as many images as instance ids, or several views of each, got"
        if shape.rank == 0 or (b and shape.rank and shape[0] is not None and not _fit(shape[0], b)):
            raise ValueError(f"{expected} {shape} of {b} ids")
        number, count = tf.shape(group)[0], tf.size(instance_ids)
        fit = (number >= count) & (number % tf.maximum(count, 1) == 0)
        checks.append(tf.debugging.Assert(fit, [expected, number, "of", count, "ids"]))
    return checks


def _fit(views: int, ids: int) -> bool:
    return views >= ids and views % ids == 0


@contextlib.contextmanager
def sentence_first() -> Iterator[None]:
    """Raise a failed assertion of ours as its sentence alone."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = _SENTENCE.search(str(error))
        if not found:
            raise
        words = re.findall(r"\[([^\[\]]*)\]", found[1].split(" [Op:")[0])
        raise tf.errors.InvalidArgumentError(None, None, " ".join(words)) from None
