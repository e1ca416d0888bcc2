"""Sources and batches of pretraining for the tests, and crops made one by one with PIL."""

import math

import numpy as np
import tensorflow as tf
from PIL import Image

from pic_tf.data import pipeline
from pic_tf.data.crops import Crop
from pic_tf.data.order import SlidingWindow
from pic_tf.data.sources.folder import open_folder

SIZE = 12  # of the views in pixels
SCALE = (0.2, 1.0)
ONE = (Crop(SIZE, SCALE),)
SEVERAL = (Crop(SIZE, SCALE, 2), Crop(8, (0.05, 0.2), 3))
COUNT = 21  # images
ORDER = SlidingWindow(COUNT, batch_size=4, window_size=12, window_stride=4, seed=5)


def natural_image(rng, height, width):
    coarse = rng.integers(0, 256, [height // 6 + 2, width // 6 + 2, 3], np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def all_batches(source, start=0, stop=12, order=ORDER, seed=7, threads=0, crops=ONE, **options):
    """[(groups, ids, weights)] of the steps start ... stop - 1 as arrays."""
    dataset = pipeline.pretraining_batches(
        source, order, crops=crops, seed=seed, start_step=start, stop_step=stop, **options
    )
    if threads:
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        dataset = dataset.with_options(options)
    return list(dataset.as_numpy_iterator())


def assert_same_bits(one, other):
    assert len(one) == len(other) > 0
    for a, b in zip(one, other):
        tf.nest.map_structure(np.testing.assert_array_equal, a, b)


def window_from(random, height, width, scale=SCALE):
    """torchvision's RandomResizedCrop (get_params) from given numbers: areas, aspects, row,
    column.
    """
    low, high = math.log(3 / 4), math.log(4 / 3)
    for u, v in zip(random[:10], random[10:20]):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * u)
        aspect = math.exp(low + (high - low) * v)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(random[20] * (height - h + 1)), int(random[21] * (width - w + 1)), h, w
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


def pil_crop(image, top, left, height, width, size=SIZE):
    cut = Image.fromarray(image).crop((left, top, left + width, top + height))
    return np.asarray(cut.resize((size, size), Image.Resampling.BILINEAR)).astype(int)


def write_folder(root):
    """Six PNG and JPEG files."""
    rng = np.random.default_rng(2)
    for i in range(6):
        path = root / f"{i}.{'png' if i % 2 else 'jpg'}"
        Image.fromarray(natural_image(rng, 40, 40)).save(path)
    return open_folder(root)


def mark(view, random):
    """An augmentation of one view that shows which numbers it was given, each in the pixels of a
    row.
    """
    return (
        tf.cast(view, tf.float32) + tf.pad(random, [[0, view.shape[0] - 10]])[:, None, None] / 256
    )


SMALLEST = (Crop(SIZE, SCALE, 2), Crop(10, (0.05, 0.2), 1))
