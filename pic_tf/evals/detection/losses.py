"""Losses of a detector: of its proposals, and of the classes and boxes told for them."""

import tensorflow as tf

from pic_tf.evals.detection.boxes import encode
from pic_tf.evals.detection.matching import POSITIVE, Match, match, sample

_LOW, _HIGH = 0.3, 0.7  # overlaps with objects, of anchors without and with one
_POSITIVE_SHARE = 0.5


def proposal_losses(
    objectness: tf.Tensor,
    differences: tf.Tensor,
    anchors: tf.Tensor,
    objects: tf.Tensor,
    there: tf.Tensor,
    random: tf.Tensor,
    count: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Sum up the losses of some anchors of each image, over `count` B.

    L_object = -sum_i [t_i log p_i + (1 - t_i) log (1 - p_i)] / (count B),
    L_box = sum_{t_i = 1} |d_i - d_i*|_1 / (count B).

    Args:
      objectness: float32 [B, N], logits of p.
      differences: float32 [B, N, 4], d.
      anchors: float32 [N, 4].
      objects: float32 [B, G, 4].
      there: bool [B, G], false for padding.
      random: float32 [B, N], even in [0, 1), for the draw of anchors.
      count: anchors to draw an image.

    Returns:
      (L_object, L_box), scalars.

    Source: Ren et al. 2015 (https://arxiv.org/abs/1506.01497), Eq. 1, with the L1 norm.
    """
    each = tf.broadcast_to(anchors, [tf.shape(objects)[0], tf.shape(anchors)[0], 4])
    found = match(each, objects, there, _LOW, _HIGH, each_object=True)
    ids, fine = sample(found.kind, random, count, _POSITIVE_SHARE)
    weight = tf.cast(fine, tf.float32)
    positive = tf.gather(found.kind, ids, batch_dims=1) == POSITIVE
    logits = tf.gather(objectness, ids, batch_dims=1)
    entropies = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(positive, tf.float32), logits)
    aims = _aims(found, objects, each, ids, (1.0, 1.0, 1.0, 1.0))
    distances = _distances(tf.gather(differences, ids, batch_dims=1), aims, positive & fine)
    norm = tf.cast(count * tf.shape(objects)[0], tf.float32)
    return tf.reduce_sum(weight * entropies) / norm, tf.reduce_sum(distances) / norm


def box_losses(
    logits: tf.Tensor,
    differences: tf.Tensor,
    aims: tf.Tensor,
    classes: tf.Tensor,
    fine: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Average the losses of some proposals.

    L_class = -mean_i log p_i(c_i),  L_box = mean_i [c_i < K] |d_i(c_i) - d_i*|_1.

    Args:
      logits: float32 [M, K + 1] of classes, the last one the background.
      differences: float32 [M, K, 4], d, for each class.
      aims: float32 [M, 4], d*; anything for the background.
      classes: int32 [M], c in 0 ... K.
      fine: bool [M], false for proposals that count for nothing.

    Returns:
      (L_class, L_box), scalars.

    Source: Girshick 2015 (https://arxiv.org/abs/1504.08083), Eq. 1, with the L1 norm.
    """
    weight = tf.cast(fine, tf.float32)
    norm = tf.maximum(tf.reduce_sum(weight), 1.0)
    entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
    background = differences.shape[1]
    own = tf.gather(differences, tf.minimum(classes, background - 1), batch_dims=1)
    distances = _distances(own, aims, fine & (classes < background))
    return tf.reduce_sum(weight * entropies) / norm, tf.reduce_sum(distances) / norm


def assign(
    proposals: tf.Tensor,
    valid: tf.Tensor,
    objects: tf.Tensor,
    classes: tf.Tensor,
    there: tf.Tensor,
    random: tf.Tensor,
    count: int,
    background: int,
    weights: tuple[float, float, float, float],
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Draw proposals to learn from, a quarter of them on objects: IoU 0.5 or more.

    Args:
      proposals: float32 [B, N, 4]; the objects themselves are added to them.
      valid: bool [B, N], false for padding.
      objects, classes, there: float32 [B, G, 4], int32 [B, G], bool [B, G].
      random: float32 [B, N + G], even in [0, 1), for the draw.
      count: proposals to draw an image.
      background: class of proposals without an object.
      weights: as of `encode`.

    Returns:
      (float32 [B, M, 4] proposals, float32 [B, M, 4] aims of their differences, int32 [B, M]
      classes, bool [B, M] false for padding).
    """
    proposals = tf.concat([proposals, objects], 1)
    valid = tf.concat([valid, there], 1)
    found = match(proposals, objects, there, 0.5, 0.5)
    found = found._replace(kind=tf.where(valid, found.kind, -1))
    ids, fine = sample(found.kind, random, count, 0.25)
    positive = (tf.gather(found.kind, ids, batch_dims=1) == POSITIVE) & fine
    owner = tf.gather(found.index, ids, batch_dims=1)
    told = tf.where(positive, tf.gather(classes, owner, batch_dims=1), background)
    aims = tf.where(positive[..., None], _aims(found, objects, proposals, ids, weights), 0.0)
    return tf.gather(proposals, ids, batch_dims=1), aims, told, fine


def _aims(
    found: Match, objects: tf.Tensor, boxes: tf.Tensor, ids: tf.Tensor, weights: tuple
) -> tf.Tensor:
    owners = tf.gather(objects, tf.gather(found.index, ids, batch_dims=1), batch_dims=1)
    return encode(owners, tf.gather(boxes, ids, batch_dims=1), weights)


def _distances(found: tf.Tensor, aims: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """|found - aims|_1, 0 where it does not count, whatever the aims are there."""
    aims = tf.where(counts[..., None], aims, found)
    return tf.reduce_sum(tf.abs(found - aims), -1)
