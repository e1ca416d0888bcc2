"""Leave out boxes that overlap better ones: proposals, and the objects that are told."""

import tensorflow as tf

from pic_tf.evals.detection.boxes import areas, clip, decode

_NO_SCORE = -1e30  # of boxes that are left out whatever else there is


def propose(
    objectness: tf.Tensor,
    differences: tf.Tensor,
    anchors: tf.Tensor,
    sizes: tf.Tensor,
    before: int,
    after: int,
    overlap: float = 0.7,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Choose the boxes that most look like objects.

    Args:
      objectness: float32 [B, N].
      differences: float32 [B, N, 4] from the anchors.
      anchors: float32 [N, 4].
      sizes: float32 [B, 2], height and width of each image in pixels.
      before: boxes to look at, those of greatest objectness.
      after: boxes to choose.
      overlap: IoU with a better one above which a box is left out.

    Returns:
      (float32 [B, after, 4] boxes in the image, the best first, bool [B, after] false for padding).

    Source: Ren et al. 2015 (https://arxiv.org/abs/1506.01497), Section 3.3.
    """
    scores, ids = tf.math.top_k(objectness, tf.minimum(before, tf.shape(objectness)[1]))
    boxes = decode(tf.gather(differences, ids, batch_dims=1), tf.gather(anchors, ids))
    boxes = clip(boxes, sizes)
    scores = tf.where(areas(boxes) > 0, scores, _NO_SCORE)
    kept = tf.image.combined_non_max_suppression(
        boxes[:, :, None],
        scores[..., None],
        after,
        after,
        overlap,
        _NO_SCORE / 2,
        clip_boxes=False,
    )
    boxes = tf.stop_gradient(tf.ensure_shape(kept.nmsed_boxes, [None, after, 4]))
    return boxes, tf.range(after) < kept.valid_detections[:, None]


def best_objects(
    probabilities: tf.Tensor,
    boxes: tf.Tensor,
    count: int,
    overlap: float = 0.5,
    least: float = 0.05,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Choose the objects to tell, class by class.

    Args:
      probabilities: float32 [B, N, K] of the classes; 0 for padding.
      boxes: float32 [B, N, K, 4] for each class.
      count: largest number of objects.
      overlap: IoU with a better one of its class above which a box is left out.
      least: probability that an object has to exceed.

    Returns:
      (float32 [B, count, 4] boxes, float32 [B, count] probabilities, the largest first, int32
      [B, count] classes, int32 [B] number of objects; the rest is padding).
    """
    kept = tf.image.combined_non_max_suppression(
        boxes, probabilities, count, count, overlap, least, clip_boxes=False
    )
    classes = tf.cast(kept.nmsed_classes, tf.int32)
    return kept.nmsed_boxes, kept.nmsed_scores, classes, kept.valid_detections
