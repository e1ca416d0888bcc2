"""Pictures for the tests of views."""

import numpy as np
import tensorflow as tf
from scipy import ndimage


def natural_images(count, height, width, seed=0):
    """uint8 [B, H, W, 3] of smooth colours with noise, gray patches, and pixels at 0 and 255."""
    rng = np.random.default_rng(seed)
    images = rng.normal(128, 70, [count, height, width, 3])
    images = np.clip(2 * ndimage.gaussian_filter(images, (0, 1, 1, 0)) - 128, 0, 255).astype(
        np.uint8
    )
    images[:, :2, :2] = images[:, :2, :2, :1]
    images[:, -1, :3] = [[0, 0, 0], [255, 255, 255], [255, 0, 0]]
    return images


def planes_of(images):
    """Three float32 [B, H, W] in [0, 1]."""
    return [tf.constant(images[..., c] / 255, tf.float32) for c in range(3)]


def levels(planes):
    """float64 [B, H, W, 3] in 0..255."""
    return np.stack([np.asarray(plane, np.float64) for plane in planes], axis=-1) * 255
