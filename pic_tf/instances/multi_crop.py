"""Eq. 1 for several views of an image in a step, of one size or of several."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from pic_tf.instances.mixing import Partners, mix


class ViewLosses(NamedTuple):
    """Losses by Eq. 1 of the views of a step, n of each of b images.

    Attributes:
      losses: float32 [b n].
      weights: float32 [b n], those of the images.
      correct: bool [b m], whether a view's own row came first, of the m views of the first size,
        which move rows.
    """

    losses: tf.Tensor
    weights: tf.Tensor
    correct: tf.Tensor


def losses_of_views(
    views: tf.Tensor | tuple[tf.Tensor, ...],
    embed: Callable[[tf.Tensor], tf.Tensor],
    classify: Callable[..., tuple[tf.Tensor, tf.Tensor]],
    rows: tf.Tensor,
    slots: tf.Tensor,
    weights: tf.Tensor,
    small_crops_move_rows: bool,
    partners: Partners | None = None,
) -> ViewLosses:
    """Embed all views and compare each with the live rows.

    Args:
      views: [b m, ...] of the backbone's input, the m views of an image one after another; or a
        group of such views for each size.
      embed: views -> embedding [b m, D].
      classify: (embedding, rows, slots int64 [b m], partners of views) -> (loss, correct), as an
        `InstanceClassifier` does.
      rows: float32 [K / R, D].
      slots: int64 [b], the row of each image.
      weights: float32 [b], 0 for an image without loss.
      small_crops_move_rows: whether gradients reach the rows from all groups, or from the first
        alone.
      partners: images to mix each with; None for views as they are.
    """
    losses, correct, of_views = [], [], []
    for group, of_size in enumerate(views if isinstance(views, (tuple, list)) else [views]):
        seen = rows if group == 0 or small_crops_move_rows else tf.stop_gradient(rows)
        embedding = embed(of_size if partners is None else mix(of_size, partners.share))
        mixed = partners and Partners(*(_of_views(values, embedding) for values in partners))
        loss, right = classify(embedding, seen, _of_views(slots, embedding), mixed)
        losses.append(loss)
        correct.append(right)
        of_views.append(_of_views(weights, embedding))
    return ViewLosses(tf.concat(losses, axis=0), tf.concat(of_views, axis=0), correct[0])


def _of_views(values: tf.Tensor, views: tf.Tensor) -> tf.Tensor:
    """Repeat values [b] of images for their n views, [b n]; `views` is anything [b n, ...]."""
    return tf.repeat(values, tf.shape(views)[0] // tf.size(values))
