"""The changes of colours against PIL and colorsys."""

import colorsys
import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance

from pic_tf.data import colour
from tests.data.images import levels, natural_images, planes_of

ORDERS = list(itertools.permutations(range(4)))


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
    got = levels(getattr(colour, name)(planes_of(images), tf.constant(factors)))
    for result, image, factor in zip(got, images, factors):
        expected = np.asarray(enhancer(Image.fromarray(image)).enhance(float(factor)), np.float64)
        # PIL cuts off the decimals of the blend (up to 1 level) and rounds the gray level it blends
        # with, of which |1 - factor| / 2 remains; 1e-3 is for float32.
        assert np.abs(result - expected).max() <= 1 + 0.5 * abs(1 - factor) + 1e-3, factor
        assert np.abs(result - expected).mean() <= 0.75, factor


def test_luminance_against_pil():
    images = natural_images(4, 20, 14)
    got = np.asarray(colour.luminance(planes_of(images))) * 255
    for result, image in zip(got, images):
        expected = np.asarray(Image.fromarray(image).convert("L"), np.float64)
        assert np.abs(result - expected).max() <= 0.5 + 1e-3  # PIL rounds to whole levels


def test_hue_against_colorsys():
    """Pixel by pixel in float64, with gray, black, white and pure colours; 1e-5 is some tens of
    float32 roundings.
    """
    rng = np.random.default_rng(0)
    shifts = np.array([-0.5, -0.2, -1e-3, 0.0, 0.07, 1 / 3, 0.2, 0.5], np.float32)
    pixels = rng.random([len(shifts), 12, 9, 3], np.float32)
    pixels[:, 0, :8] = list(itertools.product((0, 1), repeat=3))
    pixels[:, 1] = pixels[:, 1, :, :1]  # gray
    pixels[:, 2] = 0.5 + 1e-4 * pixels[:, 2]  # nearly gray
    pixels[:, 3, :, 1] = pixels[:, 3, :, 0]  # two channels share the maximum or the minimum
    got = colour.hue([tf.constant(pixels[..., c]) for c in range(3)], tf.constant(shifts))
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
    got = levels(colour.hue(planes_of(images), tf.constant(shifts, tf.float32)))
    for result, image, shift in zip(got, images, shifts):
        h, s, v = Image.fromarray(image).convert("HSV").split()
        h = Image.fromarray(
            ((np.asarray(h).astype(int) + round(shift * 255)) % 256).astype(np.uint8)
        )
        expected = np.asarray(Image.merge("HSV", (h, s, v)).convert("RGB"), np.float64)
        # PIL keeps hue in 256 steps of 6 / 256 of a channel's whole range: with the rounding of
        # saturation that is 3 levels at most for the average pixel, 38 dB.
        assert 10 * np.log10(255**2 / np.mean((result - expected) ** 2)) > 38, shift


def test_hue_without_a_shift_changes_nothing():
    images = natural_images(3, 16, 16)
    got = levels(colour.hue(planes_of(images), tf.zeros([3])))
    np.testing.assert_allclose(got, images, atol=1e-3)  # float32 roundings of a value up to 255


def test_colour_jitter_takes_the_steps_in_each_of_the_24_orders():
    """One image an order in a batch of 24, against the four functions called one after another."""
    images = natural_images(24, 10, 12)
    rng = np.random.default_rng(1)
    factors = [tf.constant(rng.uniform(0.2, 1.8, 24), tf.float32) for _ in range(3)]
    shift = tf.constant(rng.uniform(-0.2, 0.2, 24), tf.float32)
    planes = planes_of(images)
    got = np.stack(colour.colour_jitter(planes, tf.constant(ORDERS, tf.int32), factors, shift))
    steps = [colour.brightness, colour.contrast, colour.saturation, colour.hue]
    results = []
    for b, order in enumerate(ORDERS):
        one = [plane[b : b + 1] for plane in planes]
        for step in order:
            one = steps[step](one, [*factors, shift][step][b : b + 1])
        results.append(np.concatenate(one))
        np.testing.assert_allclose(
            got[:, b], results[b], atol=2e-6, err_msg=str(order)
        )  # float32 roundings
    # The orders matter: with one and the same image and strengths all but those that commute
    # differ.
    same = [tf.repeat(plane[:1], 24, axis=0) for plane in planes]
    same = np.stack(
        colour.colour_jitter(
            same,
            tf.constant(ORDERS),
            [f[:1] + tf.zeros(24) for f in factors],
            shift[:1] + tf.zeros(24),
        ),
        1,
    )
    assert len(np.unique(np.round(same.reshape(24, -1), 4), axis=0)) >= 12
