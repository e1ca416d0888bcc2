"""Mix the views of a step with one another: a view then belongs to two instances (i-Mix)."""

from typing import NamedTuple

import tensorflow as tf

from pic_tf.instances.random_bits import random_bits


class Partners(NamedTuple):
    """The second images in the mixed views of a step, of b images.

    Attributes:
      slots: int64 [b], the rows of the second images.
      share: float32 [b], c: share of the second image in views and target, 0 to 1/2.
    """

    slots: tf.Tensor
    share: tf.Tensor


def draw_share(probability: float, seed: int, step: tf.Tensor) -> tf.Tensor:
    """Draw the share of the second images in a step by (seed, step) alone.

    With `probability` it is uniform in [0, 1/2), as the lesser of c and 1 - c of a uniform c is;
    else it is 0.

    Args:
      probability: that a step mixes.
      seed: any integer.
      step: int64 scalar.

    Returns:
      float32 scalar, c.

    Source: Lee et al. 2021, i-Mix, https://arxiv.org/abs/2010.08887.
    """
    # Numbers above 0 are those of the first weights.
    bits = random_bits(seed, -tf.stack([2 * step + 1, 2 * step + 2]))
    high = tf.cast(tf.bitwise.right_shift(bits, tf.constant(40, tf.uint64)), tf.int32)
    mixes, share = tf.unstack(tf.cast(high, tf.float32) * 2**-24)
    return tf.where(mixes < probability, share / 2, 0.0)


def partners_of(slots: tf.Tensor, weights: tf.Tensor, share: tf.Tensor) -> Partners:
    """Pair each image with its mirror image in the batch, the first with the last.

    An image of weight 0, which has no row, is not mixed, nor is its partner.

    Args:
      slots: int64 [b], the row of each image.
      weights: float32 [b] of the images.
      share: float32 scalar from `draw_share`.
    """
    both = (weights > 0) & (weights[::-1] > 0)
    return Partners(slots[::-1], tf.where(both, share, 0.0))


def mix(views: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Mix each view with one of the mirror image in the batch, (1 - c) x + c x'.

    Args:
      views: [b n, ...], the n views of an image one after another.
      share: float32 [b], c.

    Returns:
      [b n, ...], in the type of floating-point views, else float32.
    """
    if not views.dtype.is_floating:  # a share would be rounded to 0
        views = tf.cast(views, tf.float32)
    shape = tf.shape(views)
    of_images = tf.reshape(views, tf.concat([[tf.size(share), -1], shape[1:]], axis=0))
    share = tf.reshape(tf.cast(share, views.dtype), [-1] + [1] * views.shape.rank)
    mixed = tf.reshape((1 - share) * of_images + share * of_images[::-1], shape)
    return tf.ensure_shape(mixed, views.shape)  # a backbone needs to know its channels
