"""Cut the views of an image whose features are averaged."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from pic_tf.data.crops import Crop, central_window
from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.sources.source import Source
from pic_tf.data.views import cut_views

# Name -> (corners besides the centre, mirror images besides each).
VIEWS = {
    "central": (False, False),
    "mirrored": (False, True),
    "five_crop": (True, False),
    "ten_crop": (True, True),
}


def windows(height: tf.Tensor, width: tf.Tensor, fraction: float, corners: bool) -> tf.Tensor:
    """Place squares with `fraction` of the image's short side: the centre, and the four corners.

    Args:
      height: int32 [b] pixels.
      width: int32 [b] pixels.
      fraction: in (0, 1].
      corners: whether to take the corners as well.

    Returns:
      int32 [b, 1 or 5, 4]: top, left, height, width in pixels.

    Source: torchvision.transforms.FiveCrop.
    """
    centre = central_window(height, width, fraction)
    if not corners:
        return centre[:, None]
    side, zero = centre[:, 2], tf.zeros_like(height)
    bottom, right = height - side, width - side
    places = ((zero, zero), (zero, right), (bottom, zero), (bottom, right))
    return tf.stack([centre, *(tf.stack([*at, side, side], axis=1) for at in places)], axis=1)


def view_batches(
    source: Source,
    instance_ids: np.ndarray,
    *,
    image_size: int,
    fraction: float,
    corners: bool,
    batch_size: int,
    broken: BrokenImages,
) -> tf.data.Dataset:
    """Cut the views of some instances, in the order given.

    Args:
      source: the images.
      instance_ids: int64 [n].
      image_size: side of a view in pixels.
      fraction, corners: as of `windows`.
      batch_size: b, images a batch; the last batch may be smaller.
      broken: list of images that cannot be decoded, to add to; their views are black.

    Returns:
      Dataset of uint8 [b, V, size, size, 3].
    """
    ids = tf.data.Dataset.from_tensor_slices(tf.constant(instance_ids, tf.int64)).batch(batch_size)
    no_random = ids.map(lambda ids: (ids, tf.zeros([tf.size(ids), 1])))
    cut = cut_views(
        no_random,
        source,
        lambda _, height, width: windows(height, width, fraction, corners),
        [Crop(image_size, count=5 if corners else 1)],
        broken,
    )
    return cut.map(lambda views, *_: views[0]).prefetch(tf.data.AUTOTUNE)


def averaged(
    features: Callable[[tf.Tensor], np.ndarray], views: tf.Tensor, mirrored: bool
) -> np.ndarray:
    """Average the features of the views of each image, mirror images among them.

        f = 1/V sum_v f(view_v)

    Args:
      features: maps uint8 [b, size, size, 3] to float32 [b, C].
      views: uint8 [b, V, size, size, 3].
      mirrored: whether the mirror image of each view is a view as well.

    Returns:
      float32 [b, C]; those of the only view as they are.
    """
    each = tf.unstack(views, axis=1)
    each += [view[:, :, ::-1] for view in each] if mirrored else []
    found = [features(view) for view in each]
    return found[0] if len(found) == 1 else np.mean(found, axis=0, dtype=np.float64).astype("f4")
