"""The augmentation against PIL, colorsys, SciPy and a float64 version of the whole chain."""

import colorsys
import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage, stats

from pic_tf.data import augment
from pic_tf.data.augment import Augmentation
from tests.data.images import natural_images
from tests.data.test_colour import ORDERS

MEAN = np.array([0.485, 0.456, 0.406])
STDDEV = np.array([0.229, 0.224, 0.225])
OFF = {
    "flip_probability": 0.0,
    "jitter_probability": 0.0,
    "grayscale_probability": 0.0,
    "blur_probability": 0.0,
}
DRAWS = 20_000


def uniform(count, seed=0):
    return tf.random.stateless_uniform([count, augment.AUGMENT_RANDOMS], [seed, 0])


def test_normalise_by_hand():
    """(image / 255 - mean) / stddev: black, white and a level of each channel."""
    image = tf.constant([[[[0, 0, 0], [255, 255, 255], [51, 102, 204]]]], tf.uint8)
    expected = [
        [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225],
        [0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225],
        [(0.2 - 0.485) / 0.229, (0.4 - 0.456) / 0.224, (0.8 - 0.406) / 0.225],
    ]
    got = augment.normalise(image)
    assert got.shape == (1, 1, 3, 3) and got.dtype == tf.float32
    np.testing.assert_allclose(got[0, 0], expected, atol=1e-6)


def test_all_probabilities_zero_is_normalise():
    images = natural_images(5, 12, 12)
    got = Augmentation(**OFF)(tf.constant(images), uniform(5))
    np.testing.assert_array_equal(got, augment.normalise(tf.constant(images)))


def test_no_strengths_is_normalise():
    """Probability 1 of a jitter by nothing."""
    images = tf.constant(natural_images(5, 12, 12))
    got = Augmentation(**{**OFF, "jitter_probability": 1.0}, jitter=(0.0, 0.0, 0.0, 0.0))(
        images, uniform(5)
    )
    np.testing.assert_array_equal(got, augment.normalise(images))


def test_flip_is_the_mirror():
    images = natural_images(6, 8, 8)
    random = uniform(6).numpy()
    random[:, 0] = [0.0, 0.49, 0.51, 0.99, 0.2, 0.7]
    got = Augmentation(**{**OFF, "flip_probability": 0.5})(tf.constant(images), tf.constant(random))
    flipped = random[:, 0] < 0.5
    expected = np.where(flipped[:, None, None, None], images[:, :, ::-1], images)
    np.testing.assert_array_equal(got, augment.normalise(tf.constant(expected)))


def test_grayscale_gives_equal_channels():
    images = natural_images(4, 8, 8)
    got = Augmentation(**{**OFF, "grayscale_probability": 1.0})(tf.constant(images), uniform(4))
    got = np.asarray(got) * STDDEV + MEAN
    expected = images @ np.array([0.299, 0.587, 0.114]) / 255
    for c in range(3):
        np.testing.assert_allclose(
            got[..., c], expected, atol=1e-6
        )  # float32 roundings of values up to 1


def reference(image, random, settings):
    """The whole chain for one image in float64: SimCLR's torchvision recipe step by step."""
    flip, order, jitter, *strengths, gray, blurred, sigma = (float(u) for u in random)
    x = image / 255
    luma = np.array([0.299, 0.587, 0.114])
    if settings.grayscale_first and gray < settings.grayscale_probability:
        x = np.repeat((x @ luma)[..., None], 3, axis=-1)
    if jitter < settings.jitter_probability:
        factors = [
            max(0, 1 - s) + (1 + s - max(0, 1 - s)) * u
            for u, s in zip(strengths, settings.jitter[:3])
        ]
        shift = settings.jitter[3] * (2 * strengths[3] - 1)
        for step in ORDERS[int(24 * order)]:
            if step == 3:
                hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in x.reshape(-1, 3)]
                x = np.array(
                    [colorsys.hsv_to_rgb((h + shift) % 1, s, v) for h, s, v in hsv]
                ).reshape(x.shape)
            else:
                target = [0.0, (x @ luma).mean(), (x @ luma)[..., None]][step]
                x = np.clip(factors[step] * x + (1 - factors[step]) * target, 0, 1)
    if not settings.grayscale_first and gray < settings.grayscale_probability:
        x = np.repeat((x @ luma)[..., None], 3, axis=-1)
    if blurred < settings.blur_probability:
        low, high = settings.blur_sigma
        radius = int(np.ceil(3 * high))
        sigma = low + (high - low) * sigma
        x = ndimage.gaussian_filter(x, sigma, mode="nearest", radius=radius, axes=(0, 1))
    if flip < settings.flip_probability:
        x = x[:, ::-1]
    return (x - MEAN) / STDDEV


@pytest.mark.parametrize(
    "settings",
    [
        Augmentation(),
        Augmentation(jitter=(0.4, 0.4, 0.4, 0.1)),  # MoCo v2
        Augmentation(jitter=(1.5, 0.3, 0.0, 0.5), jitter_probability=1.0, blur_sigma=(0.5, 1.0)),
        Augmentation(0.3, (0.0, 0.0, 0.6, 0.0), 0.5, 0.0, 0.0),
        Augmentation(
            0.5, (0.4, 0.4, 0.4, 0.4), 1.0, 0.5, 0.0, grayscale_first=True
        ),  # instance discrimination
    ],
)
def test_whole_augmentation_against_float64(settings):
    """Which number drives what, and in which sequence the steps come; of a batch, and of one
    image on the host.
    """
    images, random = natural_images(24, 12, 12), uniform(24, seed=3)
    got = settings(tf.constant(images), random)
    expected = np.stack([reference(image, u, settings) for image, u in zip(images, random.numpy())])
    # float32 roundings of some 1e-6, times 1 / stddev = 4.5 and the strengths
    np.testing.assert_allclose(got, expected, atol=5e-5)
    one_by_one = tf.stack(
        [settings.of_one(tf.constant(image), u) for image, u in zip(images, random)]
    )
    np.testing.assert_allclose(one_by_one, expected, atol=5e-5)


def test_eager_graph_and_dataset_agree():
    images, random = tf.constant(natural_images(16, 12, 12)), uniform(16, seed=5)
    settings = Augmentation()
    eager = settings(images, random)
    in_graph = tf.function(settings)(images, random)
    in_dataset = next(iter(tf.data.Dataset.from_tensors((images, random)).map(settings)))
    # Graphs may be rewritten (x / y as x * (1 / y), sums in another sequence): float32 roundings.
    np.testing.assert_allclose(in_graph, eager, atol=2e-5)
    np.testing.assert_allclose(in_dataset, eager, atol=2e-5)


def test_an_image_does_not_depend_on_the_others():
    """The same image with the same numbers gives the same view in another batch."""
    images, random = tf.constant(natural_images(16, 12, 12)), uniform(16, seed=6)
    settings = Augmentation()
    whole = settings(images, random)
    turned = settings(images[::-1], random[::-1])[::-1]
    np.testing.assert_allclose(
        whole, turned, atol=2e-5
    )  # matrix products may sum in another sequence


def capture_jitter(monkeypatch, settings, random):
    """What `settings` hands to `colour_jitter`: orders [B, 4], factors [3, B], shift [B]."""
    seen = []
    monkeypatch.setattr(augment, "colour_jitter", lambda planes, *rest: seen.append(rest) or planes)
    settings(tf.zeros([len(random), 1, 1, 3], tf.uint8), random)
    orders, factors, shift = seen[0]
    return np.asarray(orders), np.asarray(factors), np.asarray(shift)


def test_jitter_order_is_uniform(monkeypatch):
    orders, _, _ = capture_jitter(monkeypatch, Augmentation(), uniform(DRAWS))
    found, counts = np.unique(orders, axis=0, return_counts=True)
    assert [tuple(order) for order in found] == ORDERS
    assert stats.chisquare(counts).pvalue > 1e-3


def test_jitter_order_at_the_ends_of_the_interval(monkeypatch):
    """Every number below 1 is one of the 24 orders, also where float32 rounds 24 u up to 24."""
    random = np.full([2, augment.AUGMENT_RANDOMS], 0.5, np.float32)
    random[:, 1] = 0.0, np.nextafter(np.float32(1), np.float32(0))
    orders, _, _ = capture_jitter(monkeypatch, Augmentation(), tf.constant(random))
    assert [tuple(order) for order in orders] == [ORDERS[0], ORDERS[-1]]


def test_jitter_strengths_follow_their_law(monkeypatch):
    """U(max(0, 1 - s), 1 + s) and U(-s, s) for a share of the images, no change for the others."""
    settings = Augmentation(jitter=(0.8, 0.4, 1.5, 0.2), jitter_probability=0.7)
    _, factors, shift = capture_jitter(monkeypatch, settings, uniform(DRAWS, seed=1))
    on = shift != 0
    assert abs(on.mean() - 0.7) < 0.015  # 4.5 standard deviations of 20,000 draws
    assert (factors[:, ~on] == 1).all()
    for values, low, high in zip([*factors, shift], (0.2, 0.6, 0.0, -0.2), (1.8, 1.4, 2.5, 0.2)):
        assert stats.kstest(values[on], "uniform", (low, high - low)).pvalue > 1e-3
    independent = np.abs(np.corrcoef([*factors[:, on], shift[on]]) - np.eye(4))
    assert independent.max() < 4.5 / np.sqrt(on.sum())


@pytest.mark.parametrize("name", ["flip", "jitter", "grayscale", "blur"])
@pytest.mark.parametrize("probability", [0.2, 0.5, 0.8])
def test_probabilities_are_met(name, probability):
    """20,000 images of 2 x 2: the changed ones are counted; 0.016 is 4.5 standard deviations at
    most.
    """
    image = np.array([[[200, 40, 90], [30, 160, 70]], [[10, 90, 220], [120, 130, 60]]], np.uint8)
    images = tf.constant(np.tile(image, [DRAWS, 1, 1, 1]))
    settings = Augmentation(**{**OFF, f"{name}_probability": probability}, blur_sigma=(0.5, 2.0))
    got = settings(images, uniform(DRAWS, seed=2))
    changed = np.abs(got - augment.normalise(images)).max(axis=(1, 2, 3)) > 1e-3
    assert abs(changed.mean() - probability) < 0.016


def test_choices_are_independent():
    """Flip, gray and blur at once on an image that shows each: all eight cases as often as their
    product says.
    """
    image = np.array([[[200, 40, 90], [30, 20, 10]], [[200, 90, 50], [30, 10, 60]]], np.uint8)
    settings = Augmentation(0.5, (0.0,) * 4, 0.0, 0.2, 0.5, (2.0, 2.0))
    got = (
        settings(tf.constant(np.tile(image, [DRAWS, 1, 1, 1])), uniform(DRAWS, seed=4)) * STDDEV
        + MEAN
    )
    flipped = np.mean(got[:, :, 0], axis=(1, 2)) < np.mean(got[:, :, 1], axis=(1, 2))
    gray = np.ptp(got, axis=3).max(axis=(1, 2)) < 1e-3
    blurred = np.abs(np.mean(got[:, :, 0] - got[:, :, 1], axis=(1, 2))) < 0.25
    counts = [
        np.sum((flipped == f) & (gray == g) & (blurred == b))
        for f, g, b in itertools.product((0, 1), repeat=3)
    ]
    shares = [0.5 * (0.2 if g else 0.8) * 0.5 for f, g, b in itertools.product((0, 1), repeat=3)]
    assert stats.chisquare(counts, DRAWS * np.array(shares)).pvalue > 1e-3
