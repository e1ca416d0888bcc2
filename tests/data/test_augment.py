"""The augmentation against PIL, colorsys, SciPy and a float64 version of the whole chain."""

import colorsys
import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance
from scipy import ndimage, stats

from pic_tf.data import augment
from pic_tf.data.augment import Augmentation

MEAN = np.array([0.485, 0.456, 0.406])
STDDEV = np.array([0.229, 0.224, 0.225])
OFF = {"flip_probability": 0.0, "jitter_probability": 0.0, "grayscale_probability": 0.0, "blur_probability": 0.0}
ORDERS = list(itertools.permutations(range(4)))
DRAWS = 20_000


def natural_images(count, height, width, seed=0):
    """uint8 [B, H, W, 3] of smooth colours with noise, gray patches, and pixels at 0 and 255."""
    rng = np.random.default_rng(seed)
    images = rng.normal(128, 70, [count, height, width, 3])
    images = np.clip(2 * ndimage.gaussian_filter(images, (0, 1, 1, 0)) - 128, 0, 255).astype(np.uint8)
    images[:, :2, :2] = images[:, :2, :2, :1]
    images[:, -1, :3] = [[0, 0, 0], [255, 255, 255], [255, 0, 0]]
    return images


def planes_of(images):
    """Three float32 [B, H, W] in [0, 1]."""
    return [tf.constant(images[..., c] / 255, tf.float32) for c in range(3)]


def levels(planes):
    """float64 [B, H, W, 3] in 0..255."""
    return np.stack([np.asarray(plane, np.float64) for plane in planes], axis=-1) * 255


def uniform(count, seed=0):
    return tf.random.stateless_uniform([count, augment.AUGMENT_RANDOMS], [seed, 0])


@pytest.mark.parametrize(
    ("name", "enhancer"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
def test_blends_against_pil(name, enhancer):
    """torchvision's adjust_* on PIL images are these ImageEnhance classes."""
    images = natural_images(12, 20, 14)
    factors = np.array([0.0, 0.2, 0.5, 0.8, 0.99, 1.0, 1.01, 1.2, 1.5, 1.8, 2.5, 0.35], np.float32)
    got = levels(getattr(augment, name)(planes_of(images), tf.constant(factors)))
    for result, image, factor in zip(got, images, factors):
        expected = np.asarray(enhancer(Image.fromarray(image)).enhance(float(factor)), np.float64)
        # PIL cuts off the decimals of the blend (up to 1 level) and rounds the gray level it blends with, of which
        # |1 - factor| / 2 remains; 1e-3 is for float32.
        assert np.abs(result - expected).max() <= 1 + 0.5 * abs(1 - factor) + 1e-3, factor
        assert np.abs(result - expected).mean() <= 0.75, factor


def test_luminance_against_pil():
    images = natural_images(4, 20, 14)
    got = np.asarray(augment.luminance(planes_of(images))) * 255
    for result, image in zip(got, images):
        expected = np.asarray(Image.fromarray(image).convert("L"), np.float64)
        assert np.abs(result - expected).max() <= 0.5 + 1e-3  # PIL rounds to whole levels


def test_hue_against_colorsys():
    """Pixel by pixel in float64, with gray, black, white and pure colours; 1e-5 is some tens of float32 roundings."""
    rng = np.random.default_rng(0)
    shifts = np.array([-0.5, -0.2, -1e-3, 0.0, 0.07, 1 / 3, 0.2, 0.5], np.float32)
    pixels = rng.random([len(shifts), 12, 9, 3], np.float32)
    pixels[:, 0, :8] = list(itertools.product((0, 1), repeat=3))
    pixels[:, 1] = pixels[:, 1, :, :1]  # gray
    pixels[:, 2] = 0.5 + 1e-4 * pixels[:, 2]  # nearly gray
    pixels[:, 3, :, 1] = pixels[:, 3, :, 0]  # two channels share the maximum or the minimum
    got = augment.hue([tf.constant(pixels[..., c]) for c in range(3)], tf.constant(shifts))
    got = np.stack([np.asarray(plane, np.float64) for plane in got], axis=-1)
    for b, shift in enumerate(shifts):
        for i, j in np.ndindex(pixels.shape[1:3]):
            h, s, v = colorsys.rgb_to_hsv(*(float(x) for x in pixels[b, i, j]))
            expected = colorsys.hsv_to_rgb((h + float(shift)) % 1, s, v)
            np.testing.assert_allclose(got[b, i, j], expected, atol=1e-5)


def test_hue_against_pil():
    """torchvision's adjust_hue on PIL images, in steps of 1/255 turn."""
    images = natural_images(9, 24, 20)
    shifts = np.array([-102, -51, -20, -1, 0, 1, 20, 51, 127]) / 255
    got = levels(augment.hue(planes_of(images), tf.constant(shifts, tf.float32)))
    for result, image, shift in zip(got, images, shifts):
        h, s, v = Image.fromarray(image).convert("HSV").split()
        h = Image.fromarray(((np.asarray(h).astype(int) + round(shift * 255)) % 256).astype(np.uint8))
        expected = np.asarray(Image.merge("HSV", (h, s, v)).convert("RGB"), np.float64)
        # PIL keeps hue in 256 steps of 6 / 256 of a channel's whole range: with the rounding of saturation that is
        # 3 levels at most for the average pixel, 38 dB.
        assert 10 * np.log10(255**2 / np.mean((result - expected) ** 2)) > 38, shift


def test_hue_without_a_shift_changes_nothing():
    images = natural_images(3, 16, 16)
    got = levels(augment.hue(planes_of(images), tf.zeros([3])))
    np.testing.assert_allclose(got, images, atol=1e-3)  # float32 roundings of a value up to 255


def test_colour_jitter_takes_the_steps_in_each_of_the_24_orders():
    """One image an order in a batch of 24, against the four functions called one after another."""
    images = natural_images(24, 10, 12)
    rng = np.random.default_rng(1)
    factors = [tf.constant(rng.uniform(0.2, 1.8, 24), tf.float32) for _ in range(3)]
    shift = tf.constant(rng.uniform(-0.2, 0.2, 24), tf.float32)
    planes = planes_of(images)
    got = np.stack(augment.colour_jitter(planes, tf.constant(ORDERS, tf.int32), factors, shift))
    steps = [augment.brightness, augment.contrast, augment.saturation, augment.hue]
    results = []
    for b, order in enumerate(ORDERS):
        one = [plane[b : b + 1] for plane in planes]
        for step in order:
            one = steps[step](one, [*factors, shift][step][b : b + 1])
        results.append(np.concatenate(one))
        np.testing.assert_allclose(got[:, b], results[b], atol=2e-6, err_msg=str(order))  # float32 roundings
    # The orders matter: with one and the same image and strengths all but those that commute differ.
    same = [tf.repeat(plane[:1], 24, axis=0) for plane in planes]
    same = np.stack(
        augment.colour_jitter(
            same, tf.constant(ORDERS), [f[:1] + tf.zeros(24) for f in factors], shift[:1] + tf.zeros(24)
        ),
        1,
    )
    assert len(np.unique(np.round(same.reshape(24, -1), 4), axis=0)) >= 12


@pytest.mark.parametrize(
    ("max_sigma", "size"),
    [(0.5, 16), (2.0, 16), (3.4, 16), (2.0, 5), (2.0, 31), (2.0, 32), (2.0, 33), (2.0, 64), (2.0, 75), (2.0, 224)],
)
def test_gaussian_blur_against_scipy(max_sigma, size):
    """Sides below, at and above the 32 rows that are blurred at once, and no multiples of them."""
    images = natural_images(6, size, size)
    sigma = np.linspace(0.1, max_sigma, 6).astype(np.float32)
    got = augment.gaussian_blur(planes_of(images), tf.constant(sigma), tf.fill([6], True), max_sigma)
    for b in range(6):
        for c in range(3):
            expected = ndimage.gaussian_filter(
                images[b, ..., c] / 255, float(sigma[b]), mode="nearest", radius=int(np.ceil(3 * max_sigma))
            )
            np.testing.assert_allclose(got[c][b], expected, atol=1e-5)  # float32 sums of some 40 terms up to 1


def test_gaussian_blur_where_it_is_off_changes_nothing():
    images = natural_images(6, 9, 9)
    on = np.array([True, False, True, False, False, True])
    got = augment.gaussian_blur(planes_of(images), tf.fill([6], 1.5), tf.constant(on), 2.0)
    for plane, before in zip(got, planes_of(images)):
        np.testing.assert_array_equal(plane.numpy()[~on], before.numpy()[~on])
        assert (np.abs(plane - before).max(axis=(1, 2)) > 0.01).tolist() == on.tolist()


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
    got = Augmentation(**{**OFF, "jitter_probability": 1.0}, jitter=(0.0, 0.0, 0.0, 0.0))(images, uniform(5))
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
        np.testing.assert_allclose(got[..., c], expected, atol=1e-6)  # float32 roundings of values up to 1


def reference(image, random, settings):
    """The whole chain for one image in float64: SimCLR's torchvision recipe step by step."""
    flip, order, jitter, *strengths, gray, blurred, sigma = (float(u) for u in random)
    x = image / 255
    luma = np.array([0.299, 0.587, 0.114])
    if settings.grayscale_first and gray < settings.grayscale_probability:
        x = np.repeat((x @ luma)[..., None], 3, axis=-1)
    if jitter < settings.jitter_probability:
        factors = [max(0, 1 - s) + (1 + s - max(0, 1 - s)) * u for u, s in zip(strengths, settings.jitter[:3])]
        shift = settings.jitter[3] * (2 * strengths[3] - 1)
        for step in ORDERS[int(24 * order)]:
            if step == 3:
                hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in x.reshape(-1, 3)]
                x = np.array([colorsys.hsv_to_rgb((h + shift) % 1, s, v) for h, s, v in hsv]).reshape(x.shape)
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
        Augmentation(0.5, (0.4, 0.4, 0.4, 0.4), 1.0, 0.5, 0.0, grayscale_first=True),  # instance discrimination
    ],
)
def test_whole_augmentation_against_float64(settings):
    """Which number drives what, and in which sequence the steps come; of a batch, and of one image on the host."""
    images, random = natural_images(24, 12, 12), uniform(24, seed=3)
    got = settings(tf.constant(images), random)
    expected = np.stack([reference(image, u, settings) for image, u in zip(images, random.numpy())])
    # float32 roundings of some 1e-6, times 1 / stddev = 4.5 and the strengths
    np.testing.assert_allclose(got, expected, atol=5e-5)
    one_by_one = tf.stack([settings.of_one(tf.constant(image), u) for image, u in zip(images, random)])
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
    np.testing.assert_allclose(whole, turned, atol=2e-5)  # matrix products may sum in another sequence


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
    """20,000 images of 2 x 2: the changed ones are counted; 0.016 is 4.5 standard deviations at most."""
    image = np.array([[[200, 40, 90], [30, 160, 70]], [[10, 90, 220], [120, 130, 60]]], np.uint8)
    images = tf.constant(np.tile(image, [DRAWS, 1, 1, 1]))
    settings = Augmentation(**{**OFF, f"{name}_probability": probability}, blur_sigma=(0.5, 2.0))
    got = settings(images, uniform(DRAWS, seed=2))
    changed = np.abs(got - augment.normalise(images)).max(axis=(1, 2, 3)) > 1e-3
    assert abs(changed.mean() - probability) < 0.016


def test_choices_are_independent():
    """Flip, gray and blur at once on an image that shows each: all eight cases as often as their product says."""
    image = np.array([[[200, 40, 90], [30, 20, 10]], [[200, 90, 50], [30, 10, 60]]], np.uint8)
    settings = Augmentation(0.5, (0.0,) * 4, 0.0, 0.2, 0.5, (2.0, 2.0))
    got = settings(tf.constant(np.tile(image, [DRAWS, 1, 1, 1])), uniform(DRAWS, seed=4)) * STDDEV + MEAN
    flipped = np.mean(got[:, :, 0], axis=(1, 2)) < np.mean(got[:, :, 1], axis=(1, 2))
    gray = np.ptp(got, axis=3).max(axis=(1, 2)) < 1e-3
    blurred = np.abs(np.mean(got[:, :, 0] - got[:, :, 1], axis=(1, 2))) < 0.25
    counts = [np.sum((flipped == f) & (gray == g) & (blurred == b)) for f, g, b in itertools.product((0, 1), repeat=3)]
    shares = [0.5 * (0.2 if g else 0.8) * 0.5 for f, g, b in itertools.product((0, 1), repeat=3)]
    assert stats.chisquare(counts, DRAWS * np.array(shares)).pvalue > 1e-3
