"""Features of a data set, from a backbone or as raw pixels."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from pic_tf.data.augment import normalise

_RAW_SIZE = 32  # pixels; 20,000 views of it are 245 MB


def inference(backbone: Callable[..., tf.Tensor]) -> Callable[[tf.data.Dataset], np.ndarray]:
    """A function that extracts features, batch normalisation in inference mode.

    Args:
      backbone: maps float32 [b, H, W, 3], normalised, and `training=False` to [b, C].

    Returns:
      Function from a data set of uint8 [b, H, W, 3] to float32 [n, C]; it is compiled once.
    """

    @tf.function(reduce_retracing=True)
    def features(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(backbone(normalise(images), training=False), tf.float32)

    return lambda batches: np.concatenate([features(images).numpy() for images in batches])


def raw_pixels(batches: tf.data.Dataset) -> np.ndarray:
    """Normalised pixels as features: what a backbone has to beat.

    Args:
      batches: uint8 [b, H, W, 3]; larger views than 32 x 32 are shrunk to it, or memory would not do.

    Returns:
      float32 [n, 3 min(H, 32) min(W, 32)].
    """

    def pixels(images: tf.Tensor) -> np.ndarray:
        images = normalise(images)
        if max(images.shape[1:3]) > _RAW_SIZE:
            images = tf.image.resize(images, [_RAW_SIZE, _RAW_SIZE], antialias=True)
        return images.numpy().reshape(len(images), -1)

    return np.concatenate([pixels(images) for images in batches])
