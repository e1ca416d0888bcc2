"""Mean and deviation of channels against NumPy."""

import numpy as np
import pytest

from pic_tf.data import channel_statistics
from pic_tf.data.channel_statistics import Moments, measure_normalisation
from pic_tf.data.sources.array import ArraySource

RNG = np.random.default_rng(0)


def test_moments_of_parts_are_those_of_all():
    """Far from 0, where a sum of squares would lose all digits of the deviation."""
    pixels = 1e8 + RNG.normal(0, [1, 3, 0.1], [1000, 3])
    moments = Moments()
    for part in np.split(pixels, [1, 10, 11, 600]):
        moments.add(part)
    # float64 holds 1e8 to 1.5e-8, a share of 1.5e-7 of the least deviation; sums lose some more.
    np.testing.assert_allclose(moments.mean, pixels.mean(0), rtol=1e-14)
    np.testing.assert_allclose(moments.stddev, pixels.std(0), rtol=1e-6)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_square_images_at_their_own_size(kind):
    largest = np.iinfo(kind).max
    shape = [150, 6, 6, 5]
    images = (RNG.beta(2, np.arange(1, 6), shape) * largest).astype(kind)
    mean, stddev = measure_normalisation(ArraySource(images), 6, 0.0)
    exact = images.reshape(-1, 5) / largest
    np.testing.assert_allclose(mean, exact.mean(0), rtol=5e-6)  # six digits
    np.testing.assert_allclose(stddev, exact.std(0), rtol=5e-6)


def test_of_many_images_a_fixed_draw(monkeypatch):
    monkeypatch.setattr(channel_statistics, "MOST", 40)
    images = RNG.integers(0, 256, [200, 4, 4, 1]).astype(np.uint8)
    chosen = np.random.default_rng(0).choice(200, 40, replace=False)
    mean, stddev = measure_normalisation(ArraySource(images), 4, 0.0)
    exact = images[chosen] / 255
    np.testing.assert_allclose([mean[0], stddev[0]], [exact.mean(), exact.std()], rtol=5e-6)


def test_a_channel_of_one_level_is_refused():
    images = RNG.integers(0, 256, [20, 4, 4, 2]).astype(np.uint8)
    images[..., 1] = 17
    message = "expected channels of more than one level in 'array', got 17 everywhere in channel 1"
    with pytest.raises(ValueError, match=message):
        measure_normalisation(ArraySource(images), 4, 0.0)
