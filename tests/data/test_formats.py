"""One meaning of every format: what training reads of a folder, what packing keeps, and what an
export makes of encoded images are Pillow's convert("RGB"), level by level.
"""

import io
import resource
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pic_tf.data.crops import Crop, crop_encoded
from pic_tf.data.decode import bombs, headers
from pic_tf.data.decode.broken import reason
from pic_tf.data.decode.pictures import decode_picture
from pic_tf.data.packing.image import packed_image
from pic_tf.data.sources.formats import READS_WEBP, is_read
from tests.data.batches import natural_image

HEIGHT, WIDTH = 21, 21  # of the pictures: a square, of which a window may be everything
needs_webp = pytest.mark.skipif(not READS_WEBP, reason="TensorFlow decodes WebP since 2.21")


def encode(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def picture(seed=0, mode="RGB"):
    return Image.fromarray(natural_image(np.random.default_rng(seed), HEIGHT, WIDTH)).convert(mode)


def with_alpha(mode, dtype=None):
    image, alpha = picture(1, mode), np.arange(HEIGHT * WIDTH, dtype=np.uint8) % 255
    image.putalpha(Image.fromarray(alpha.reshape(HEIGHT, WIDTH)))
    return image


def drawing():
    """Three colours, the first of which is the background."""
    image = Image.new("P", (WIDTH, HEIGHT), 0)
    image.putpalette([250, 240, 230, 0, 0, 0, 200, 30, 30, 10, 200, 30])
    image.paste(1, (3, 3, 18, 6))
    image.paste(2, (9, 2, 12, 19))
    return image


def on_screen(gif, left, top, width, height):
    """A GIF with its first frame on a larger screen."""
    data = bytearray(gif)
    at = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    while data[at] != 0x2C:
        at += 2
        while data[at]:
            at += data[at] + 1
        at += 1
    data[at + 1 : at + 5] = struct.pack("<HH", left, top)
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def own_palette(gif):
    """A GIF whose palette is that of its frame, not of all frames."""
    size = 3 * 2 ** ((gif[10] & 7) + 1)
    at = gif.index(b",", 13 + size)
    head = gif[:10] + bytes([gif[10] & 0x7F]) + gif[11:13]
    frame = gif[at : at + 9] + bytes([0x80 | (gif[10] & 7)])
    return head + gif[13 + size : at] + frame + gif[13 : 13 + size] + gif[at + 10 :]


MORE = {"save_all": True, "append_images": [picture(9)]}
JPEG = encode(picture(), "JPEG", quality=95)
AFTER_FIRST = 4 + int.from_bytes(JPEG[4:6], "big")  # where the second segment begins
FOLDER = {
    "JPEG": JPEG,
    "gray JPEG": encode(picture(mode="L"), "JPEG"),
    "progressive JPEG": encode(picture(), "JPEG", progressive=True, subsampling=2),
    "JPEG of several pictures": encode(picture(), "MPO", **MORE),
    "stray bytes": JPEG[:AFTER_FIRST] + b"\0\0\0" + JPEG[AFTER_FIRST:],
    "many stray bytes": JPEG[:AFTER_FIRST] + bytes(5000) + JPEG[AFTER_FIRST:],
    "FF 00": JPEG[:AFTER_FIRST] + b"\xff\0" + JPEG[AFTER_FIRST:],
    "a wrong length": JPEG[:AFTER_FIRST] + b"\xff\xed\0\x05abc\0stray" + JPEG[AFTER_FIRST:],
    "1,200 segments": JPEG[:2] + b"\xff\xed\0\x02" * 1200 + JPEG[2:],
    "PNG": encode(picture(), "PNG"),
    "RGBA PNG": encode(with_alpha("RGB"), "PNG"),
    "LA PNG": encode(with_alpha("L"), "PNG"),
    "gray PNG": encode(picture(mode="L"), "PNG"),
    "gray PNG, one level transparent": encode(picture(mode="L"), "PNG", transparency=90),
    "PNG, one colour transparent": encode(picture(), "PNG", transparency=(1, 2, 3)),
    "PNG of one bit": encode(picture(mode="1"), "PNG"),
    "palette PNG": encode(picture().quantize(60), "PNG"),
    "palette PNG of two bits": encode(drawing(), "PNG", bits=2),
    "palette PNG with alpha": encode(picture().quantize(60), "PNG", transparency=bytes(range(60))),
    "moving PNG": encode(picture(), "PNG", **MORE),
}
WEBP = {
    "lossy WebP": encode(picture(), "WEBP", quality=70),
    "lossless WebP": encode(picture(), "WEBP", lossless=True),
    "WebP with alpha": encode(with_alpha("RGB"), "WEBP", quality=70),
    "lossless WebP with alpha": encode(with_alpha("RGB"), "WEBP", lossless=True, exact=True),
    "WebP with Exif": encode(picture(), "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
}
OTHERS = {
    "GIF": encode(picture().quantize(60), "GIF"),
    "transparent GIF": encode(drawing(), "GIF", transparency=0),
    "GIF with a transparent line": encode(drawing(), "GIF", transparency=1),
    "moving GIF": encode(drawing(), "GIF", transparency=0, **MORE),
    "interlaced GIF": encode(drawing(), "GIF", interlace=1),
    "gray GIF": encode(picture(mode="L"), "GIF"),
    "GIF with comments": encode(drawing(), "GIF", transparency=0, comment=b"a" * 700),
    "GIF with a palette of the frame": own_palette(encode(drawing(), "GIF", transparency=2)),
    "small GIF on a screen": on_screen(encode(drawing(), "GIF"), 4, 5, 30, 30),
    "small transparent GIF on a screen": on_screen(
        encode(drawing(), "GIF", transparency=2), 4, 5, 30, 30
    ),
    "GIF over its screen": on_screen(encode(drawing(), "GIF", transparency=0), 4, 4, 3, 3),
    "BMP": encode(picture(), "BMP"),
    "gray BMP": encode(picture(mode="L"), "BMP"),
    "palette BMP": encode(picture().quantize(60), "BMP"),
    "RGBA BMP": encode(with_alpha("RGB"), "BMP"),
}
ALL = {**FOLDER, **(WEBP if READS_WEBP else {}), **OTHERS}


def of_pillow(encoded):
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))


@tf.function(input_signature=[tf.TensorSpec([None], tf.string), tf.TensorSpec([], tf.int32)])
def in_training(encoded, side):
    """The picture as training decodes it: a window of everything in its own size."""
    size = headers.sizes(encoded)[0]
    window = tf.concat([[0, 0], size], axis=0)[None]
    return crop_encoded(bombs.harmless(encoded)[0], size, window, [Crop(HEIGHT)])[0][0]


as_encoded = tf.function(decode_picture, input_signature=[tf.TensorSpec([], tf.string)])


@pytest.mark.parametrize("name", FOLDER | WEBP)
def test_a_folder(name):
    encoded = (FOLDER | WEBP)[name]
    if name in WEBP and not READS_WEBP:
        pytest.skip("TensorFlow decodes WebP since 2.21")
    assert is_read(encoded)
    np.testing.assert_array_equal(in_training([encoded], HEIGHT), of_pillow(encoded))


@pytest.mark.parametrize("name", ALL)
def test_packing(name):
    """What training reads of the record is what Pillow reads of the file."""
    record, width, height = packed_image(io.BytesIO(ALL[name]), 32, 50)
    expected = of_pillow(ALL[name])
    assert (height, width) == expected.shape[:2] and is_read(record)
    if name.endswith("BMP"):  # a photograph, as a rule: it becomes a JPEG
        return
    np.testing.assert_array_equal(as_encoded(record), expected)


@pytest.mark.parametrize("name", ALL)
def test_encoded_images_of_an_export(name):
    np.testing.assert_array_equal(as_encoded(ALL[name]), of_pillow(ALL[name]))


def test_the_picture_that_lost_its_background(tmp_path):
    """A transparent background was drawn in black: mean level 1.7 instead of 200."""
    gif = encode(drawing(), "GIF", transparency=0)
    assert of_pillow(gif).mean() > 150
    assert tf.io.decode_image(gif, expand_animations=False).numpy().mean() < 60
    assert as_encoded(gif).numpy().mean() == of_pillow(gif).mean()


@pytest.mark.parametrize(
    "encoded",
    [
        OTHERS["GIF"][:13],
        OTHERS["GIF"][:500],
        OTHERS["transparent GIF"][:25],
        b"GIF89a",
        b"GIF89a" + b"\xff" * 7,
        on_screen(OTHERS["transparent GIF"], 0, 0, 65535, 65535),
        encode(picture(mode="1"), "BMP"),
        OTHERS["palette BMP"][:60],
        OTHERS["BMP"][:30] + b"\1" + OTHERS["BMP"][31:],
        b"BM",
        b"",
        b"text",
        b"RIFF",
    ],
)
def test_what_cannot_be_decoded_is_refused(encoded):
    before = peak_memory()
    with pytest.raises(tf.errors.InvalidArgumentError):
        as_encoded(encoded)
    assert peak_memory() - before < 1e9  # the screen of 65,535 x 65,535 pixels took 4.3e9


def peak_memory():
    """The most bytes of memory that this process has had."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@needs_webp
def test_moving_webps_are_for_packing():
    """Their decoder gives all frames, or ends the process."""
    for still in (picture(), with_alpha("RGB")):
        moving = encode(still, "WEBP", lossless=True, **MORE)
        assert headers.sizes([moving]).numpy().tolist() == [[0, 0]]
        assert reason(moving) == "an animated WebP, which tools/pack.py converts"
        with pytest.raises(tf.errors.InvalidArgumentError):
            as_encoded(moving)
        record, *_ = packed_image(io.BytesIO(moving), 32, 50)
        np.testing.assert_array_equal(as_encoded(record), of_pillow(moving))


@needs_webp
def test_sizes_of_webps():
    for size in ((1, 1), (300, 7), (16383, 2)):
        for options in ({}, {"lossless": True}):
            for mode in ("RGB", "RGBA"):
                encoded = encode(Image.new(mode, size, 7), "WEBP", **options)
                assert headers.sizes([encoded, b"text"]).numpy().tolist() == [[*size[::-1]], [0, 0]]
    assert headers.sizes([encoded[:29]]).numpy().tolist() == [[0, 0]]
