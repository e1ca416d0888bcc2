"""Sizes from headers against PIL, and against whatever else bytes may hold."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pic_tf.data import headers


def encode(size, file_format, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.new(mode, size, 7).save(buffer, file_format, **options)
    return buffer.getvalue()


def segment(kind, content):
    """A segment of a JPEG."""
    return b"\xff" + bytes([kind]) + struct.pack(">H", len(content) + 2) + content


THUMBNAIL = encode((160, 120), "JPEG")
JPEG = encode((61, 45), "JPEG")
IMAGES = {
    **{f"JPEG {s}": encode((61 + s, 45), "JPEG", subsampling=s) for s in range(3)},
    "progressive JPEG": encode((300, 7), "JPEG", progressive=True),
    "gray JPEG": encode((1, 1), "JPEG", "L"),
    "CMYK JPEG": encode((9, 8), "JPEG", "CMYK"),
    "JPEG with a JPEG inside": JPEG[:2] + segment(0xE1, b"Exif\0\0" + THUMBNAIL) + JPEG[2:],
    "JPEG with filling bytes": JPEG[:2] + b"\xff" * 9 + JPEG[2:],
    "JPEG with many segments": JPEG[:2] + segment(0xE2, bytes(3000)) * 300 + JPEG[2:],
    "JPEG with a comment that looks like a frame": JPEG[:2] + segment(0xFE, segment(0xC0, bytes(15))) + JPEG[2:],
    **{f"{mode} PNG": encode((33, 500), "PNG", mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")},
    "GIF": encode((20, 10), "GIF", "P"),
    "animated GIF": encode((12, 31), "GIF", "P", save_all=True, append_images=[Image.new("P", (12, 31))]),
}


def test_sizes_are_pils():
    """All in one batch, and each alone."""
    expected = [Image.open(io.BytesIO(image)).size[::-1] for image in IMAGES.values()]
    got = headers.sizes(tf.constant(list(IMAGES.values()))).numpy()
    assert dict(zip(IMAGES, map(tuple, got))) == dict(zip(IMAGES, expected))
    for image, size in zip(IMAGES.values(), expected):
        assert tuple(tf.function(headers.sizes)(tf.constant([image])).numpy()[0]) == size


def test_the_largest_jpeg():
    """More than PIL would open."""
    largest = JPEG.replace(struct.pack(">HH", 45, 61), b"\xff\xff\xff\xff", 1)
    assert headers.sizes(tf.constant([largest])).numpy().tolist() == [[65535, 65535]]


def test_real_photographs(real_photographs):
    records = [path.read_bytes() for path in sorted(real_photographs.iterdir())]
    expected = [Image.open(io.BytesIO(record)).size[::-1] for record in records]
    np.testing.assert_array_equal(headers.sizes(tf.constant(records)), expected)


@pytest.mark.parametrize(
    "nothing",
    [
        b"",
        b"hello",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xd9",  # ends at once
        JPEG[:2] + segment(0xDA, bytes(10)),  # pixels before a frame
        b"\xff\xd8" + b"\xff" * 3000,  # filling bytes only
        b"\xff\xd8\xff\xe0\0\0" + JPEG[20:],  # a segment shorter than its length field
        b"GIF89a" + bytes(20),
        headers.PNG_START[:12],
        headers.PNG_START + b"\xff" * 8,
    ],
    ids=repr,
)
def test_bytes_without_a_size(nothing):
    assert (headers.sizes(tf.constant([nothing, JPEG])).numpy()[0] <= 0).all()
    assert tuple(headers.sizes(tf.constant([JPEG, nothing])).numpy()[0]) == (45, 61)


def test_any_beginning_of_an_image_has_its_size_or_none():
    for image in (IMAGES["progressive JPEG"], IMAGES["RGB PNG"], IMAGES["GIF"]):
        size = Image.open(io.BytesIO(image)).size[::-1]
        got = headers.sizes(tf.constant([image[:n] for n in range(len(image))])).numpy()
        assert {tuple(x) for x in got if (x > 0).all()} <= {size}
