"""Views of images of other channels or bits than RGB of 8 against NumPy, SciPy and Pillow."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import ndimage

from pic_tf.data import crops
from pic_tf.data.augment import Augmentation, normalise
from pic_tf.data.normalisation import Normalisation, unit_range
from pic_tf.data.presets import PRESETS, augmentation_of, without_colours
from tests.data.test_augment import uniform
from tests.data.test_colour import ORDERS


def smooth(count, side, channels, kind):
    """[count, side, side, channels] with levels from 0 to the largest."""
    images = np.random.default_rng(1).normal(0.5, 0.3, [count, side, side, channels])
    images = np.clip(2 * ndimage.gaussian_filter(images, (0, 1, 1, 0)) - 0.5, 0, 1)
    return np.rint(images * np.iinfo(kind).max).astype(kind)


def reference(image, random, settings):
    """The chain for one image in float64: brightness and contrast of each channel by itself, in
    the order that the four steps of RGB would have; blur, flip.
    """
    flip, order, jitter, *strengths, _, blurred, sigma = (float(u) for u in random)
    x = image / np.iinfo(image.dtype).max
    if jitter < settings.jitter_probability:
        for step in ORDERS[int(24 * order)]:
            if step < 2:
                s = settings.jitter[step]
                factor = max(0, 1 - s) + (1 + s - max(0, 1 - s)) * strengths[step]
                target = 0 if step == 0 else x.mean(axis=(0, 1))
                x = np.clip(factor * x + (1 - factor) * target, 0, 1)
    if blurred < settings.blur_probability:
        low, high = settings.blur_sigma
        options = {"mode": "nearest", "radius": int(np.ceil(3 * high)), "axes": (0, 1)}
        x = ndimage.gaussian_filter(x, low + (high - low) * sigma, **options)
    if flip < settings.flip_probability:
        x = x[:, ::-1]
    return (x - settings.normalisation.mean) / settings.normalisation.stddev


@pytest.mark.parametrize("shape", [(2, 9, 40, 3), (2, 40, 9, 1)])
def test_views_need_not_be_square_nor_coloured(shape):
    """Each of its pixels as in the square that repeats the edges, which the blur does too."""
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    augmentation = Augmentation(0.0, (0.0,) * 4, 0.0, 0.5, 1.0, (0.5, 1.0))
    wider = [(0, 0), *((0, 40 - side) for side in shape[1:3]), (0, 0)]
    if shape[3] == 1:
        with pytest.raises(ValueError, match="of the 1 channels of the images, got 3: name"):
            augmentation(tf.constant(images), uniform(2))
        augmentation = dataclasses.replace(
            augmentation, normalisation=Normalisation((0.5,), (1.0,))
        )
    square = augmentation(tf.constant(np.pad(images, wider, "edge")), uniform(2))
    got = augmentation(tf.constant(images), uniform(2))
    # float32 roundings of some 1e-6, times 1 / stddev = 5
    np.testing.assert_allclose(got, square[:, : shape[1], : shape[2]], atol=1e-5)


@pytest.mark.parametrize(("channels", "kind"), [(1, np.uint8), (5, np.uint16)])
def test_the_augmentation_against_float64(channels, kind):
    numbers = np.linspace(0.2, 0.6, channels)
    own = Normalisation(tuple(numbers), tuple(numbers / 2))
    settings = augmentation_of(without_colours(PRESETS["simclr"]()), own)
    images, random = smooth(24, 12, channels, kind), uniform(24, seed=3)
    expected = np.stack([reference(image, u, settings) for image, u in zip(images, random.numpy())])
    got = settings(tf.constant(images), random)
    # float32 roundings of some 1e-6, times 1 / stddev = 10 and the strengths
    np.testing.assert_allclose(got, expected, atol=5e-5)
    if channels == 1:
        some = [settings.of_one(tf.constant(image), u) for image, u in zip(images[:8], random)]
        np.testing.assert_allclose(tf.stack(some), expected[:8], atol=5e-5)


def test_levels_of_sixteen_bits():
    """RGB keeps its colours, in [0, 1] and normalised."""
    images = smooth(3, 8, 3, np.uint16)
    np.testing.assert_allclose(unit_range(tf.constant(images)), images / 65535, rtol=1e-6)
    own = Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    expected = (images / 65535 - own.mean) / own.stddev
    # float32 roundings of numbers up to 2
    np.testing.assert_allclose(normalise(tf.constant(images), own), expected, atol=1e-6)
    gray = Augmentation(0.0, (0.0,) * 4, 0.0, 1.0, 0.0, normalisation=own)
    got = gray(tf.constant(images), uniform(3)).numpy() * own.stddev + own.mean
    luma = images / 65535 @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(got, np.repeat(luma[..., None], 3, -1), atol=1e-6)


def test_a_normalisation_of_other_channels_is_refused():
    with pytest.raises(ValueError, match="of the 2 channels of the images, got 3: name"):
        normalise(tf.zeros([1, 2, 2, 2], tf.uint8))


@pytest.mark.parametrize(("height", "width", "size"), [(8, 8, 8), (40, 57, 16), (33, 20, 24)])
def test_crops_of_sixteen_bits_against_pillow(height, width, size):
    """Pillow resizes a channel of floats by the same filter."""
    rng = np.random.default_rng(2)
    images = rng.integers(0, 65536, [12, height, width, 2]).astype(np.uint16)
    images[0], images[1] = 65535, 0
    lengths = np.stack([rng.integers(1, height + 1, 12), rng.integers(1, width + 1, 12)], axis=1)
    starts = rng.integers(0, np.array([height, width]) - lengths + 1)
    windows = np.concatenate([starts, lengths], axis=1).astype(np.int32)
    got = crops.crop_arrays(tf.constant(images), tf.constant(windows), size)
    assert got.dtype == tf.uint16
    for i, (top, left, h, w) in enumerate(windows.tolist()):
        for c in range(2):
            cut = Image.fromarray(images[i, top : top + h, left : left + w, c].astype(np.float32))
            expected = np.asarray(cut.resize((size, size), Image.Resampling.BILINEAR))
            # half a level of rounding, and some ten roundings of float32, 0.004 each at 65535
            assert np.abs(got[i, ..., c].numpy() - expected).max() <= 0.5 + 0.08


def test_floats_are_levels_of_8_bits():
    """As Keras has them: a user's batch need not be of bytes."""
    levels = np.random.default_rng(0).integers(0, 256, [2, 3, 4, 3]).astype(np.uint8)
    np.testing.assert_array_equal(normalise(levels.astype(np.float32)), normalise(levels))
    np.testing.assert_array_equal(unit_range(levels.astype(np.float32)), unit_range(levels))
