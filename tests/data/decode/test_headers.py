"""Sizes from headers against PIL, and against whatever else bytes may hold."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pic_tf.data.decode import headers

in_graph = tf.function(headers.sizes, input_signature=[tf.TensorSpec([None], tf.string)])


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
    "JPEG with a comment that looks like a frame": JPEG[:2]
    + segment(0xFE, segment(0xC0, bytes(15)))
    + JPEG[2:],
    **{
        f"{mode} PNG": encode((33, 500), "PNG", mode)
        for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")
    },
}


SMALL = encode((30, 40), "JPEG")
FRAME = SMALL.index(b"\xff\xc0\0")  # where its frame header starts


def sizes(images):
    """int [b][2], height and width of a list of bytes."""
    return in_graph(tf.constant(images, tf.string)).numpy().tolist()


def after_start(jpeg, more):
    """A JPEG with `more` before its first segment."""
    return jpeg[:2] + more + jpeg[2:]


def test_sizes_are_pils():
    """All in one batch, and each alone."""
    expected = [Image.open(io.BytesIO(image)).size[::-1] for image in IMAGES.values()]
    assert dict(zip(IMAGES, map(tuple, sizes(list(IMAGES.values()))))) == dict(
        zip(IMAGES, expected)
    )
    for image, size in zip(IMAGES.values(), expected):
        assert sizes([image]) == [list(size)]


def test_the_largest_jpeg():
    """More than PIL would open."""
    largest = JPEG.replace(struct.pack(">HH", 45, 61), b"\xff\xff\xff\xff", 1)
    assert sizes([largest]) == [[65535, 65535]]


def test_real_photographs(real_photographs):
    records = [path.read_bytes() for path in sorted(real_photographs.iterdir())]
    expected = [Image.open(io.BytesIO(record)).size[::-1] for record in records]
    np.testing.assert_array_equal(sizes(records), expected)


@pytest.mark.parametrize(
    "nothing",
    [
        b"",
        b"hello",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xd9",  # ends at once
        JPEG[:2] + segment(0xDA, bytes(10)),  # pixels before a frame
        b"\xff\xd8" + b"\xff" * 3000,  # filling bytes only
        b"\xff\xd8\xff\xe0\0\0" + JPEG[:2],  # a segment shorter than its length field
        encode((20, 10), "GIF", "P"),  # packing converts it
        headers.PNG_HEADER[:12],
        headers.PNG_HEADER + b"\xff" * 8,
    ],
    ids="empty text start end pixels filling short gif png-start png-none".split(),
)
def test_bytes_without_a_size(nothing):
    for images in ([nothing, JPEG], [JPEG, nothing]):
        found = dict(zip(images, sizes(images)))
        assert max(found[nothing]) <= 0 and found[JPEG] == [45, 61]


def test_any_beginning_of_an_image_has_its_size_or_none():
    for image in (IMAGES["progressive JPEG"], IMAGES["RGB PNG"]):
        size = Image.open(io.BytesIO(image)).size[::-1]
        got = sizes([image[:n] for n in range(len(image))])
        assert {tuple(x) for x in got if min(x) > 0} <= {size}


def test_eager_graph_and_data_set_agree():
    images = [SMALL, encode((9, 3), "PNG"), encode((2, 8), "GIF", "P"), b"text", b""]
    expected = [[40, 30], [3, 9], [0, 0], [0, 0], [0, 0]]
    dataset = tf.data.Dataset.from_tensors(tf.constant(images)).map(headers.sizes)
    assert dataset.element_spec == tf.TensorSpec([5, 2], tf.int32)
    assert sizes(images) == headers.sizes(tf.constant(images)).numpy().tolist() == expected
    assert next(iter(dataset)).numpy().tolist() == expected
    assert in_graph(tf.constant([], tf.string)).shape == (0, 2)


def with_exif(jpeg, thumbnail):
    """The JPEG with what a camera writes: that the picture is turned, and a small JPEG of it."""
    first = struct.pack("<HHHIII", 1, 0x0112, 3, 1, 6, 26)
    second = struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, 56, 0x0202, 4, 1, len(thumbnail), 0)
    return after_start(jpeg, segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + first + second + thumbnail))


@pytest.mark.parametrize(
    "encoded",
    [
        with_exif(SMALL, THUMBNAIL),
        SMALL[:FRAME] + b"\xff" * 20 + SMALL[FRAME:],
        after_start(SMALL, b"".join(b"\xff" * n + segment(0xE0 + n, b"ab") for n in range(16))),
        after_start(SMALL, segment(0xE5, b"")),
        after_start(SMALL, segment(0xE2, bytes(65_533))),
        after_start(SMALL, segment(0xED, b"a") * 900),
        after_start(SMALL, segment(0xDD, b"\0\4")),  # a restart interval
        SMALL + b"junk" + THUMBNAIL,
    ],
    ids="exif fill-before-frame fill-everywhere empty longest many restart behind".split(),
)
def test_whatever_comes_before_the_frame_header(encoded):
    """As PIL and TensorFlow's own reader of headers."""
    assert sizes([encoded]) == [[40, 30]]
    assert Image.open(io.BytesIO(encoded)).size == (30, 40)
    assert tf.io.extract_jpeg_shape(encoded).numpy().tolist() == [40, 30, 3]


def test_every_kind_of_frame_and_nothing_else():
    """ITU-T T.81, Table B.1: C0 to CF but for C4 (Huffman tables), C8 (reserved) and CC
    (arithmetic conditioning).
    """
    images = [SMALL[: FRAME + 1] + bytes([kind]) + SMALL[FRAME + 2 :] for kind in range(256)]
    frames = [kind for kind, size in enumerate(sizes(images)) if size == [40, 30]]
    assert frames == [0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF]


def test_every_truncation_of_a_jpeg():
    """The size from the byte on that completes it, nothing before: not the thumbnail's, no half
    of a number.
    """
    jpeg = with_exif(encode((300, 400), "JPEG"), THUMBNAIL)
    complete = jpeg.index(b"\xff\xc0\0", jpeg.index(THUMBNAIL) + len(THUMBNAIL)) + 9
    expected = [[400, 300] if n >= complete else [0, 0] for n in range(len(jpeg))]
    assert sizes([jpeg[:n] for n in range(len(jpeg))]) == expected


@pytest.mark.parametrize(
    "encoded",
    [
        SMALL[:20] + b"\0\0\0" + SMALL[20:],
        SMALL[:20] + b"\xff\0" + SMALL[20:],
        SMALL[:20] + bytes(10**6) + SMALL[20:],
        SMALL[:20] + b"\xff\x01" + SMALL[20:],
        b"\xff\xd8\xff\xe0\0\0" + SMALL[20:],
        after_start(SMALL, b"\xff\xed\0\x05abc\0stray"),
    ],
    ids="stray zero-marker many no-segment no-length wrong-length".split(),
)
def test_where_no_segment_stands_the_decoder_reads_on(encoded):
    expected = tf.io.extract_jpeg_shape(encoded).numpy()[:2].tolist()
    assert expected == [40, 30]
    for images in ([encoded, SMALL, b"text"], [b"", encoded]):
        assert sizes(images)[images.index(encoded)] == expected


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_damaged_bytes_never_raise(name):
    """600 overwritten, cut off or made up; a JPEG has the size that TensorFlow reads, or none."""
    rng = np.random.default_rng(4)
    whole = encode((30, 40), name)
    damaged = [whole[:3] + rng.bytes(200) for _ in range(60)]
    for i in range(540):
        data = bytearray(whole)
        data[3:] = np.where(
            rng.random(len(data) - 3) < 0.01, rng.integers(0, 256, len(data) - 3), list(data[3:])
        ).tolist()
        damaged.append(bytes(data[: rng.integers(len(data))] if i % 3 == 0 else data))
    got = sizes(damaged)
    assert len(got) == 600
    compared = 0
    for data, size in zip(damaged, got if name == "JPEG" else []):
        try:
            expected = tf.io.extract_jpeg_shape(data).numpy()[:2].tolist()
        except tf.errors.InvalidArgumentError:
            continue
        assert size in (expected, [0, 0])
        compared += any(size)
    assert compared > 50 or name != "JPEG"


def test_headers_without_an_end_do_not_hold_up():
    """A megabyte of filling bytes or of empty segments has no size, and the images beside it have
    their own.
    """
    start = b"\xff\xd8\xff"
    endless = [
        start + b"\xff" * 10**6,
        start + b"\xe0\0\2\xff" * 250_000,
        after_start(SMALL, segment(0xED, b"") * 1000),
    ]
    none = [0, 0]
    found = sizes([*endless, start + b"\xe0\0\0", start + b"\xe0\xff\xff", SMALL])
    # After 1,000 segments the decoder is asked, which reads on.
    assert found == [none, none, [40, 30], none, none, [40, 30]]


def png(width, height):
    """The start of a PNG."""
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + struct.pack(">II", width, height)


def test_pngs_of_any_size():
    pairs = [(width, height) for width in (1, 2**16, 2**31 - 1) for height in (1, 2**16, 2**31 - 1)]
    assert sizes([png(*pair) for pair in pairs]) == [[height, width] for width, height in pairs]
    for side in (0, 2**31, 2**32 - 1):  # none, or more than 31 bits hold
        assert all(min(size) <= 0 for size in sizes([png(side, 7), png(7, side)]))
    for pair in [*pairs, (2**32 - 1, 2**31)]:
        assert headers.png_size(png(*pair)) == pair


@pytest.mark.parametrize(
    "encoded", [png(5, 7)[:23], JPEG, encode((5, 7), "GIF", "P"), b"BM" + bytes(60), b""]
)
def test_the_size_of_something_else_than_a_png(encoded):
    with pytest.raises(ValueError, match="expected a JPEG or PNG image, got something else"):
        headers.png_size(encoded)
