"""Make batches of images with their objects, as a pure function of (seed, step)."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pic_tf.data.augment import normalise
from pic_tf.data.decode.pictures import decode_picture
from pic_tf.data.order import SlidingWindow
from pic_tf.evals.detection.annotations import Picture
from pic_tf.evals.transfer.datasets import PictureSet
from pic_tf.evals.transfer.inputs import visits


def training_batches(
    data: PictureSet[Picture],
    order: SlidingWindow,
    *,
    short_sides: Sequence[int],
    long_side: int,
    flip_probability: float,
    seed: int,
    start_step: int,
    stop_step: int,
) -> tf.data.Dataset:
    """Make the batches of the steps start_step ... stop_step - 1.

    Args:
      data: N images, each with at least one object.
      order: the images that each step visits.
      short_sides: short side of an image in pixels, one of them drawn for each image.
      long_side: largest long side; the short one is then smaller.
      flip_probability: probability of a horizontal flip.
      seed: seed of sides and flips.
      start_step: first step.
      stop_step: one past the last step.

    Returns:
      Dataset of (images float32 [b, H, W, 3], normalised, with zeros at the right and below,
      sizes float32 [b, 2], boxes float32 [b, G, 4], classes int32 [b, G], there bool [b, G] false
      for padding, steps int64 [b]).
    """
    most = max(len(picture.objects.classes) for picture in data.pictures)
    boxes = np.zeros([len(data.pictures), most, 4], np.float32)
    classes = np.zeros([len(data.pictures), most], np.int32)
    counts = np.array([len(picture.objects.classes) for picture in data.pictures])
    for i, picture in enumerate(data.pictures):
        boxes[i, : counts[i]], classes[i, : counts[i]] = picture.objects[:2]
    tables = [tf.constant(table) for table in (boxes, classes, counts)]
    batch, sides = order.batch_size // order.num_replicas, tf.constant(list(short_sides))

    def of_image(i: tf.Tensor, random: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        side = sides[tf.cast(random[0] * len(short_sides), tf.int32)]
        image, scale = resized(pixels_of(data, i), side, long_side)
        own, kind, count = (table[i] for table in tables)
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        own = own * tf.gather(scale, [1, 0, 1, 0])
        flip = random[1] < flip_probability
        image = tf.where(flip, tf.reverse(image, [1]), image)
        there = tf.range(most) < tf.cast(count, tf.int32)
        turned = tf.stack([size[1] - own[:, 2], own[:, 1], size[1] - own[:, 0], own[:, 3]], 1)
        own = tf.where(flip & there[:, None], turned, own)
        return image, size, own, kind, there, step

    images = visits(order, 2, seed, start_step, stop_step).map(
        of_image, num_parallel_calls=tf.data.AUTOTUNE
    )
    return images.padded_batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


@tf.autograph.experimental.do_not_convert
def pixels_of(data: PictureSet[Picture], i: tf.Tensor) -> tf.Tensor:
    """Read and decode an image, uint8 [h, w, 3], of int64 scalar i."""

    def read(i: np.ndarray) -> np.ndarray:
        with data.pictures[i].open() as file:
            return np.array(file.read(), object)  # NumPy's own strings would lose zeros at the end

    # Stateless, so that images are read in parallel.
    encoded = tf.numpy_function(read, [i], tf.string, stateful=False)
    return decode_picture(tf.ensure_shape(encoded, []))


def resized(image: tf.Tensor, short_side: tf.Tensor, long_side: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Resize an image by its short side, and normalise it.

    Args:
      image: uint8 [h, w, 3].
      short_side: in pixels.
      long_side: largest long side.

    Returns:
      (float32 [H, W, 3], float32 [2] H / h and W / w).
    """
    image = tf.ensure_shape(image, [None, None, 3])
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    scale = tf.cast(short_side, tf.float32) / tf.reduce_min(size)
    scale = tf.minimum(scale, long_side / tf.reduce_max(size))
    target = tf.maximum(tf.cast(tf.floor(size * scale + 0.5), tf.int32), 1)
    pixels = tf.image.resize(image, target, antialias=True)
    levels = tf.cast(tf.round(tf.clip_by_value(pixels, 0, 255)), tf.uint8)
    return normalise(levels[None])[0], tf.cast(target, tf.float32) / size
