"""Match anchors and proposals with the objects of an image, and sample those to learn from."""

from typing import NamedTuple

import tensorflow as tf

from pic_tf.evals.detection.boxes import overlaps

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


class Match(NamedTuple):
    """Objects that boxes belong to.

    Attributes:
      index: int32 [B, N], the object that a box overlaps most.
      kind: int32 [B, N], `POSITIVE`, `NEGATIVE` or `IGNORED`.
    """

    index: tf.Tensor
    kind: tf.Tensor


def match(
    boxes: tf.Tensor,
    objects: tf.Tensor,
    there: tf.Tensor,
    low: float,
    high: float,
    each_object: bool = False,
) -> Match:
    """Match boxes with objects by their intersection over union (IoU).

    A box is positive from `high` on, negative below `low` and ignored between the two.

    Args:
      boxes: float32 [B, N, 4].
      objects: float32 [B, G, 4], G >= 1, padded.
      there: bool [B, G], false for padding.
      low, high: the limits, low <= high.
      each_object: whether the boxes that overlap an object most are positive too, whatever their
        IoU, as long as it is above 0.

    Returns:
      The matches; all boxes of an image without objects are negative.

    Source: Ren et al. 2015 (https://arxiv.org/abs/1506.01497), Section 3.1.2.
    """
    found = tf.where(there[:, None], overlaps(boxes, objects), -1.0)
    best = tf.reduce_max(found, 2)
    kind = tf.where(best >= high, POSITIVE, tf.where(best < low, NEGATIVE, IGNORED))
    if each_object:
        of_object = tf.reduce_max(found, 1, keepdims=True)
        kind = tf.where(tf.reduce_any((found == of_object) & (found > 0), 2), POSITIVE, kind)
    return Match(tf.argmax(found, 2, tf.int32), kind)


def sample(
    kind: tf.Tensor, random: tf.Tensor, count: int, positive_share: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draw boxes at random: positive ones up to a share of `count`, the rest negative.

    Args:
      kind: int32 [B, N] as of `Match`.
      random: float32 [B, N], even in [0, 1); the largest are drawn.
      count: boxes to draw an image.
      positive_share: largest share of positive ones.

    Returns:
      (int32 [B, min(count, N)] ids of boxes, bool of the same shape, false where an image has too
      few boxes of both kinds, so that the id means nothing). The positive ones come first.
    """
    # Positive boxes beyond the share are left out, and then all is one order of preference.
    positive, negative = kind == POSITIVE, kind == NEGATIVE
    wanted = tf.minimum(int(count * positive_share), tf.shape(kind)[1])
    ranked = tf.where(positive, random, -1.0)
    last = tf.math.top_k(ranked, wanted).values[:, -1:]
    chosen = positive & (ranked >= last)
    preference = tf.where(chosen, 2 + random, tf.where(negative, random, -1.0))
    values, ids = tf.math.top_k(preference, tf.minimum(count, tf.shape(kind)[1]))
    return ids, values >= 0
