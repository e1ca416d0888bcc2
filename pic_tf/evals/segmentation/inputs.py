"""Make batches of crops with their masks, as a pure function of (seed, step)."""

import numpy as np
import tensorflow as tf

from pic_tf.data.augment import normalise
from pic_tf.data.decode.pictures import decode_picture
from pic_tf.data.order import SlidingWindow
from pic_tf.evals.segmentation.masks import IGNORED, Picture, read_mask
from pic_tf.evals.transfer.datasets import PictureSet
from pic_tf.evals.transfer.inputs import visits


@tf.autograph.experimental.do_not_convert
def training_batches(
    data: PictureSet[Picture],
    order: SlidingWindow,
    *,
    crop_size: int,
    scale_range: tuple[float, float],
    flip_probability: float,
    seed: int,
    start_step: int,
    stop_step: int,
) -> tf.data.Dataset:
    """Make the batches of the steps start_step ... stop_step - 1.

    Args:
      data: N images with masks.
      order: the images that each step visits.
      crop_size: see `crop`.
      scale_range: least and largest scale, drawn evenly between.
      flip_probability: probability of a horizontal flip.
      seed: seed of scales, places and flips.
      start_step: first step.
      stop_step: one past the last step.

    Returns:
      Dataset of (images float32 [b, S, S, 3], normalised, labels uint8 [b, S, S]).
    """
    paths = tf.constant([str(picture.path) for picture in data.pictures])
    least, largest = scale_range

    def of_visit(i: tf.Tensor, random: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = decode_picture(tf.io.read_file(paths[i]))
        # Stateless, so that masks are read in parallel.
        read = lambda i: read_mask(data.pictures[i])  # noqa: E731
        labels = tf.numpy_function(read, [i], tf.uint8, stateful=False)
        scale = least + (largest - least) * random[0]
        image, labels = crop(image, labels, scale, random[1:3], crop_size)
        flip = random[3] < flip_probability
        return (
            tf.where(flip, tf.reverse(image, [1]), image),
            tf.where(flip, tf.reverse(labels, [1]), labels),
        )

    images = visits(order, 4, seed, start_step, stop_step)
    images = images.map(of_visit, num_parallel_calls=tf.data.AUTOTUNE)
    batch = order.batch_size // order.num_replicas
    return images.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def crop(
    image: tf.Tensor, labels: tf.Tensor, scale: tf.Tensor, place: tf.Tensor, size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Take a crop of an image that was resized with its labels.

    Pixel (y, x) of the crop lies at ((y + y0 + 1/2) / scale, (x + x0 + 1/2) / scale) of the image,
    whatever lies in it is averaged (bilinear, with antialias), and has the label there. Where the
    resized image is smaller than the crop, the rest is 0 and ignored.

    Args:
      image: uint8 [h, w, 3].
      labels: uint8 [h, w].
      scale: scalar.
      place: float32 [2] in [0, 1); (y0, x0) is this share of the pixels that the crop leaves out.
      size: S, side of the crop in pixels.

    Returns:
      (float32 [S, S, 3], normalised, uint8 [S, S]).
    """
    image, labels = tf.ensure_shape(image, [None, None, 3]), tf.ensure_shape(labels, [None, None])
    extent = tf.shape(image)[:2]
    left_out = tf.floor(tf.cast(extent, tf.float32) * scale + 0.5) - size
    start = tf.floor(place * (tf.maximum(left_out, 0) + 1))
    # The operation of `tf.image.resize`, at the pixels of the crop alone.
    pixels = tf.raw_ops.ScaleAndTranslate(
        images=tf.cast(image, tf.float32)[None],
        size=[size, size],
        scale=tf.stack([scale, scale]),
        translation=-start,
        kernel_type="triangle",
        antialias=True,
    )
    levels = tf.cast(tf.round(tf.clip_by_value(pixels, 0, 255)), tf.uint8)
    at = (tf.range(size, dtype=tf.float32)[:, None] + start + 0.5) / scale  # [S, 2]
    at = tf.cast(tf.floor(at), tf.int32)
    inside = at < extent
    at = tf.minimum(at, extent - 1)
    inside = inside[:, None, 0] & inside[None, :, 1]
    labels = tf.gather(tf.gather(labels, at[:, 0]), at[:, 1], axis=1)
    labels = tf.where(inside, labels, np.uint8(IGNORED))
    image = tf.where(inside[..., None], normalise(levels)[0], 0.0)
    return tf.ensure_shape(image, [size, size, 3]), tf.ensure_shape(labels, [size, size])
