"""Bring levels to [0, 1], and normalise them by channel."""

from typing import NamedTuple

import tensorflow as tf

MEAN = (0.485, 0.456, 0.406)  # ImageNet's channel means and standard deviations, images in [0, 1]
STDDEV = (0.229, 0.224, 0.225)


class Normalisation(NamedTuple):
    """Mean and standard deviation of each channel, of images in [0, 1]; ImageNet's by default.

    Attributes:
      mean: one number a channel.
      stddev: one number a channel, > 0.
    """

    mean: tuple[float, ...] = MEAN
    stddev: tuple[float, ...] = STDDEV


IMAGENET = Normalisation()


def largest_level(dtype: tf.DType) -> int:
    """Largest level of images: 65,535 of uint16; else 255, of floats too, as Keras has them."""
    return 65535 if dtype == tf.uint16 else 255


def unit_range(images: tf.Tensor) -> tf.Tensor:
    """Scale levels, uint8 or uint16, to float32 in [0, 1], the input of an export."""
    images = tf.convert_to_tensor(images)
    return tf.cast(images, tf.float32) / largest_level(images.dtype)
