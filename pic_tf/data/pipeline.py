"""From steps to batches: ids -> images -> crops, every batch a pure function of (seed, step)."""

from collections.abc import Callable, Iterable

import tensorflow as tf

from pic_tf.data import bombs, crops
from pic_tf.data.augment import AUGMENT_RANDOMS
from pic_tf.data.order import SlidingWindow
from pic_tf.data.sources import Source

_READ_AHEAD = 4  # batches read at once


def pretraining_batches(
    source: Source,
    order: SlidingWindow,
    *,
    image_size: int,
    crop_scale: tuple[float, float],
    seed: int,
    start_step: int,
    stop_step: int,
) -> tf.data.Dataset:
    """Batches of the steps start_step ... stop_step - 1.

    Args:
      source: the images.
      order: which instances each step visits.
      image_size: side of a view in pixels.
      crop_scale: least and largest area of a crop as a share of the image.
      seed: of the crops and of the augmentation.
      start_step: first step.
      stop_step: one past the last step.

    Returns:
      Dataset of ((views uint8 [B, size, size, 3], random float32 [B, 10]), instance_ids int64 [B]);
      `random` drives `Augmentation`.
    """
    batch = order.batch_size // order.num_replicas

    def of_step(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        key = tf.stack([tf.constant(seed, tf.int64), step * order.num_replicas + order.replica])
        random = tf.random.stateless_uniform([batch, crops.CROP_RANDOMS + AUGMENT_RANDOMS], key)
        return order.instance_ids(step), random

    def window_of(random: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        return crops.random_window(random[:, : crops.CROP_RANDOMS], height, width, crop_scale)

    steps = tf.data.Dataset.range(start_step, stop_step).map(of_step, num_parallel_calls=tf.data.AUTOTUNE)
    views = _crop(steps, source, window_of, image_size, batch, drop_remainder=True)
    return views.map(lambda view, ids, random: ((view, random[:, crops.CROP_RANDOMS :]), ids)).prefetch(
        tf.data.AUTOTUNE
    )


def evaluation_batches(
    source: Source, instance_ids, *, image_size: int, crop_fraction: float, batch_size: int = 256
) -> tf.data.Dataset:
    """Central views of some instances, in the order given.

    Args:
      source: the images.
      instance_ids: integer [n].
      image_size: side of a view in pixels.
      crop_fraction: side of the centred square as a share of the short side, in (0, 1].
      batch_size: images a batch; the last batch may be smaller.

    Returns:
      Dataset of uint8 [b, size, size, 3].
    """

    def window_of(_, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        return crops.central_window(height, width, crop_fraction)

    ids = tf.data.Dataset.from_tensor_slices(tf.cast(instance_ids, tf.int64)).batch(batch_size)
    # Nothing is random here; one unused number, because tf.data crashes when it unbatches empty tensors.
    no_random = ids.map(lambda ids: (ids, tf.zeros([tf.size(ids), 1])))
    views = _crop(no_random, source, window_of, image_size, batch_size, drop_remainder=False)
    return views.map(lambda view, *_: view).prefetch(tf.data.AUTOTUNE)


def find_undecodable(source: Source, instance_ids: Iterable[int]) -> ValueError | None:
    """TensorFlow does not say which file it could not read or decode; this looks for it, one by one.

    Args:
      source: the images.
      instance_ids: where to look.

    Returns:
      An error that names the first such file, or None where all are well.
    """

    def whole(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        return tf.stack([tf.zeros_like(height), tf.zeros_like(width), height, width], axis=1)

    for instance_id in instance_ids:
        name, ids = source.path(instance_id), tf.constant([instance_id], tf.int64)
        try:
            record = source.read(ids)
            if record.dtype != tf.string:
                continue
            width, height = bombs.declared_size(record[0].numpy())
            if width * height > bombs.MAX_PIXELS:
                return ValueError(
                    f"expected an image of at most {bombs.MAX_PIXELS:,} pixels in {name!r}, got {width} x {height}: "
                    "remove or replace it"
                )
            crops.crop_encoded(bombs.harmless(record)[0], whole, size=1)
        except (tf.errors.OpError, ValueError):
            return ValueError(f"expected an image in {name!r}, got one that cannot be read: remove or replace it")
    return None


def _read(source: Source, instance_ids: tf.Tensor) -> tf.Tensor:
    """`source.read`, safe to decode."""
    images = source.read(instance_ids)
    return bombs.harmless(images) if images.dtype == tf.string else images


def _crop(
    batches: tf.data.Dataset,
    source: Source,
    window_of: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
    image_size: int,
    batch_size: int,
    drop_remainder: bool,
) -> tf.data.Dataset:
    """(ids, random) -> (views, ids, random), by the batch for arrays, by the image for encoded ones."""

    def crop_arrays(images: tf.Tensor, ids: tf.Tensor, random: tf.Tensor):
        count, height, width = (tf.shape(images)[i] for i in range(3))
        windows = window_of(random, tf.fill([count], height), tf.fill([count], width))
        return crops.crop_arrays(images, windows, image_size), ids, random

    def crop_encoded(encoded: tf.Tensor, instance_id: tf.Tensor, random: tf.Tensor):
        view = crops.crop_encoded(encoded, lambda height, width: window_of(random[None], height, width), image_size)
        return view, instance_id, random

    records = batches.map(lambda ids, random: (_read(source, ids), ids, random), num_parallel_calls=_READ_AHEAD)
    if records.element_spec[0].dtype != tf.string:
        return records.map(crop_arrays, num_parallel_calls=tf.data.AUTOTUNE)
    views = records.unbatch().map(crop_encoded, num_parallel_calls=tf.data.AUTOTUNE)
    return views.batch(batch_size, drop_remainder=drop_remainder)
