"""What the tests of packing share: pictures, and what a packed data set holds."""

import csv
import io

import numpy as np
import tensorflow as tf
from PIL import Image

from pic_tf.data.sources import packed

SIDE = 32  # of packed images in most tests


def smooth(width, height, seed=0):
    """A picture that JPEG hardly changes: uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(width, height)
    a, b, c = rng.uniform(-1, 1, [3, 3])
    return np.rint(
        127.5 + 55 * (np.sin(3 * (a * x[..., None] + b * y[..., None]) + 9 * c) + x[..., None])
    ).astype(np.uint8)


def save(path, picture, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(path, **options)
    return path


def exif(tag, value):
    entries = Image.Exif()
    entries[tag] = value
    return entries


def records(folder, class_names=()):
    """name -> bytes, in the order of ids."""
    source = packed.open_packed(folder, class_names)
    return dict(zip(source.names, source.read(tf.range(len(source), dtype=tf.int64)).numpy()))


def left_out(folder):
    with open(
        folder / "left_out.csv", newline="", encoding="utf-8", errors="surrogateescape"
    ) as file:
        header, *rows = csv.reader(file)
    assert header == ["name", "reason"]
    return dict(rows)


def decoded(record):
    with Image.open(io.BytesIO(record)) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        return np.asarray(image).astype(float)


def write_classes(folder, *names):
    for seed, name in enumerate(names):
        save(folder / name, smooth(20, 20 + seed, seed))
    return folder
