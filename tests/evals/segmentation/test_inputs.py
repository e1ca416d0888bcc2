"""Crops against Pillow-like resizing of the whole image, and batches as a function of the step."""

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.data.augment import normalise
from pic_tf.data.order import SlidingWindow
from pic_tf.evals.segmentation.folders import open_masks
from pic_tf.evals.segmentation.inputs import crop, training_batches
from tests.evals.segmentation.test_folders import plain, save


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_a_crop_is_one_of_the_whole_image_resized(scale):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, [12, 20, 3]).astype(np.uint8)
    labels = rng.integers(0, 3, [12, 20]).astype(np.uint8)
    size, place = 8, (0.3, 0.99)
    pixels, found = crop(tf.constant(image), tf.constant(labels), scale, tf.constant(place), size)
    height, width = int(12 * scale), int(20 * scale)
    whole = tf.image.resize(image, [height, width], antialias=True)
    whole = normalise(tf.cast(tf.round(whole), tf.uint8)[None])[0].numpy()
    y0 = int(0.3 * (max(height - size, 0) + 1))
    x0 = int(0.99 * (max(width - size, 0) + 1))
    y1, x1 = min(height - y0, size), min(width - x0, size)
    expected = whole[y0 : y0 + size, x0 : x0 + size]
    # A level of 255 is rounded to one or the other side where the sum has its end at a half.
    np.testing.assert_allclose(pixels[:y1, :x1], expected, atol=1.01 / 255 / 0.22)
    assert np.mean(np.abs(pixels[:y1, :x1] - expected)) < 1e-3
    assert not pixels.numpy()[y1:].any() and (found.numpy()[y1:] == 255).all()
    for y in range(y1):
        for x in range(x1):
            at = labels[int((y + y0 + 0.5) / scale), int((x + x0 + 0.5) / scale)]
            assert found[y, x] == at
    assert (y1 < size) == (scale == 0.5)  # one case is smaller than the crop


def test_batches_hold_pixels_and_labels_together(tmp_path):
    """Labels are the brightness of the pixels, so they move, grow and flip alike."""
    rng, folder = np.random.default_rng(0), plain(tmp_path, {})
    for name in "abcd":
        labels = rng.integers(0, 2, [5, 6]).repeat(8, 0).repeat(8, 1).astype(np.uint8)
        save(folder / f"train/images/{name}.png", 255 * labels[..., None].repeat(3, 2))
        save(folder / f"train/masks/{name}.png", labels)
    data = open_masks(folder, "train")

    def of(start, replica=0, replicas=1):
        return list(
            training_batches(
                data,
                SlidingWindow(4, 2, 4, 4, 1, replica, replicas),
                crop_size=32,
                scale_range=(0.6, 2.0),
                flip_probability=0.5,
                seed=3,
                start_step=start,
                stop_step=6,
            ).as_numpy_iterator()
        )

    whole = of(0)
    assert len(whole) == 6 and whole[0][0].shape == (2, 32, 32, 3)
    for images, labels in whole:
        there = labels != 255
        agree = (images[..., 0] > 0) == (labels == 1)
        assert agree[there].mean() > 0.93  # all but the edges of blocks, which are blurred
        assert there.mean() > 0.8
    for again, before in zip(of(4), whole[4:]):
        for a, b in zip(again, before):
            np.testing.assert_array_equal(a, b)
    assert of(4, 1, 2)[0][0].shape == (1, 32, 32, 3)
