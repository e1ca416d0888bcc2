"""Features of a data set, from a backbone or as raw pixels."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from pic_tf.data.augment import normalise


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
    """Normalised pixels as features, float32 [n, H W 3]: what a backbone has to beat."""
    return np.concatenate([normalise(images).numpy().reshape(len(images), -1) for images in batches])
