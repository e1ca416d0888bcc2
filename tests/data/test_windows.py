"""Windows of crops against torchvision's law."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from pic_tf.data import crops


def torchvision_window(rng, height, width, scale, ratio):
    """RandomResizedCrop.get_params of torchvision, written down again."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w
    w, h = width, height
    if width / height < min(ratio):
        h = round(width / min(ratio))
    elif width / height > max(ratio):
        w = round(height * max(ratio))
    return (height - h) // 2, (width - w) // 2, h, w


def random_windows(count, height, width, scale=(0.08, 1.0), seed=0, **options):
    random = tf.random.stateless_uniform([count, crops.CROP_RANDOMS], [seed, 1])
    return crops.random_window(
        random, tf.fill([count], height), tf.fill([count], width), scale, **options
    ).numpy()


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [
        (375, 500, (0.08, 1.0), (3 / 4, 4 / 3)),
        (96, 64, (0.2, 1.0), (3 / 4, 4 / 3)),
        (224, 224, (0.08, 0.14), (0.5, 1.5)),
        (20, 200, (0.08, 1.0), (3 / 4, 4 / 3)),  # ten tries fail for a part of the draws
        (200, 20, (0.08, 1.0), (3 / 4, 4 / 3)),
        (10, 200, (0.08, 1.0), (3 / 4, 4 / 3)),  # no area fits: always the central window
    ],
)
def test_random_window_follows_torchvisions_law(height, width, scale, ratio):
    """Two-sample Kolmogorov-Smirnov over 20,000 draws each; p > 1e-3 (the seeds are fixed)."""
    got = random_windows(20_000, height, width, scale, ratio=ratio)
    rng = np.random.default_rng(1)
    expected = np.array(
        [torchvision_window(rng, height, width, scale, ratio) for _ in range(20_000)]
    )
    quantities = {
        "area": lambda top, left, h, w: h * w,
        "aspect": lambda top, left, h, w: w / h,
        "top": lambda top, left, h, w: top,
        "left": lambda top, left, h, w: left,
        "height": lambda top, left, h, w: h,
        "width": lambda top, left, h, w: w,
        "row": lambda top, left, h, w: (
            top / np.maximum(height - h, 1)
        ),  # share of the free space above
        "column": lambda top, left, h, w: left / np.maximum(width - w, 1),
    }
    for name, of in quantities.items():
        assert stats.ks_2samp(of(*got.T), of(*expected.T)).pvalue > 1e-3, name


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (10, 200, (0, 93, 10, 13)),  # widest: round(10 * 4 / 3) = 13, and (200 - 13) // 2 = 93
        (200, 10, (93, 0, 13, 10)),
        (1, 50, (0, 24, 1, 1)),
    ],
)
def test_random_window_falls_back_to_the_centre(height, width, expected):
    assert (random_windows(1000, height, width) == expected).all()


def test_random_windows_lie_inside():
    """Tiny and huge images, and numbers at both ends of [0, 1)."""
    rng = np.random.default_rng(0)
    shapes = np.concatenate(
        [rng.integers(1, 12, [2000, 2]), rng.integers(1, 30_000, [2000, 2])]
    ).astype(np.int32)
    below_one = np.nextafter(np.float32(1), np.float32(0))
    random = rng.random([4000, crops.CROP_RANDOMS], np.float32)
    ends = rng.random(random.shape)
    random = np.where(ends < 0.2, np.float32(0), np.where(ends > 0.8, below_one, random))
    for scale in ((0.08, 1.0), (1.0, 1.0), (1e-6, 1e-5)):
        top, left, height, width = (
            crops.random_window(random, shapes[:, 0], shapes[:, 1], scale).numpy().T
        )
        assert min(top.min(), left.min()) >= 0 and min(height.min(), width.min()) >= 1
        assert (top + height <= shapes[:, 0]).all() and (left + width <= shapes[:, 1]).all()


def test_whole_image_is_the_only_window_of_full_area():
    windows = random_windows(100, 48, 48, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert (windows == (0, 0, 48, 48)).all()


@pytest.mark.parametrize(
    ("height", "width", "fraction", "expected"),
    [
        (256, 256, 224 / 256, (16, 16, 224, 224)),
        (256, 341, 224 / 256, (16, 58, 224, 224)),  # (341 - 224) // 2 = 58
        (341, 256, 224 / 256, (58, 16, 224, 224)),
        (8, 8, 1.0, (0, 0, 8, 8)),
        (9, 20, 1.0, (0, 5, 9, 9)),
        (3, 3, 0.1, (1, 1, 1, 1)),  # never less than a pixel
        (1, 1, 1.0, (0, 0, 1, 1)),
    ],
)
def test_central_window(height, width, fraction, expected):
    got = crops.central_window(tf.constant([height]), tf.constant([width]), fraction)
    assert tuple(got.numpy()[0]) == expected and got.dtype == tf.int32
