"""The blur against SciPy."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from pic_tf.data import blur
from tests.data.images import natural_images, planes_of


@pytest.mark.parametrize(
    ("max_sigma", "height", "width"),
    [
        (0.5, 16, 16),
        (2.0, 16, 16),
        (3.4, 16, 16),
        (2.0, 5, 5),
        (2.0, 31, 31),
        (2.0, 32, 32),
        (2.0, 33, 33),
        (2.0, 64, 64),
        (2.0, 75, 20),
        (2.0, 9, 50),
        (2.0, 224, 224),
    ],
)
def test_gaussian_blur_against_scipy(max_sigma, height, width):
    """Sides below, at and above the 32 rows that are blurred at once, and no multiples of them."""
    images = natural_images(6, height, width)
    sigma = np.linspace(0.1, max_sigma, 6).astype(np.float32)
    got = blur.gaussian_blur(planes_of(images), tf.constant(sigma), tf.fill([6], True), max_sigma)
    for b in range(6):
        for c in range(3):
            expected = ndimage.gaussian_filter(
                images[b, ..., c] / 255,
                float(sigma[b]),
                mode="nearest",
                radius=int(np.ceil(3 * max_sigma)),
            )
            np.testing.assert_allclose(
                got[c][b], expected, atol=1e-5
            )  # float32 sums of some 40 terms up to 1


def test_gaussian_blur_where_it_is_off_changes_nothing():
    images = natural_images(6, 9, 9)
    on = np.array([True, False, True, False, False, True])
    got = blur.gaussian_blur(planes_of(images), tf.fill([6], 1.5), tf.constant(on), 2.0)
    for plane, before in zip(got, planes_of(images)):
        np.testing.assert_array_equal(plane.numpy()[~on], before.numpy()[~on])
        assert (np.abs(plane - before).max(axis=(1, 2)) > 0.01).tolist() == on.tolist()
