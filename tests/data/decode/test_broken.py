"""Images that cannot be decoded, of every kind, among others that only look strange: weights,
pixels, reasons, file.
"""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pic_tf.data import pipeline
from pic_tf.data.crops import Crop
from pic_tf.data.decode.broken import BrokenImages, reason
from pic_tf.data.order import epoch_order
from pic_tf.data.sources.folder import open_folder
from pic_tf.data.sources.formats import NAMES, READS_WEBP
from tests.data.batches import natural_image, pil_crop, window_from
from tests.data.decode.test_bombs import chunk, jpeg, png

SIZE, SCALE, SEED = 8, (0.2, 1.0), 3
SHAPE = (30, 41)


def encode(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def picture(seed, height=SHAPE[0], width=SHAPE[1]):
    return Image.fromarray(natural_image(np.random.default_rng(seed), height, width))


def with_alpha(mode):
    image = picture(1).convert(mode)
    image.putalpha(Image.fromarray(np.arange(SHAPE[0] * SHAPE[1], dtype=np.uint8).reshape(SHAPE)))
    return image


def png_of_sixteen_bits(levels):
    """uint16 [H, W, 3] as a PNG, which PIL cannot write."""
    height, width = levels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


LEVELS = np.random.default_rng(9).integers(0, 2**16, [*SHAPE, 3], np.uint16)
JPEG, PNG = encode(picture(2), "JPEG"), encode(picture(2), "PNG")
STRANGE = {
    "CMYK": encode(picture(1).convert("CMYK"), "JPEG"),
    "gray JPEG": encode(picture(1).convert("L"), "JPEG"),
    "progressive": encode(picture(1), "JPEG", progressive=True),
    "4:2:0": encode(picture(1), "JPEG", subsampling=2),
    "JPEG with more behind": JPEG + b"junk" * 9,
    "gray PNG": encode(picture(1).convert("L"), "PNG"),
    "one bit": encode(picture(1).convert("1"), "PNG"),
    "16 bits, gray": encode(Image.fromarray(LEVELS[..., 0]), "PNG"),
    "16 bits, colour": png_of_sixteen_bits(LEVELS),
    "palette": encode(picture(1).quantize(50), "PNG"),
    "palette with transparency": encode(
        picture(1).quantize(50), "PNG", transparency=bytes(range(50))
    ),
    "RGBA": encode(with_alpha("RGB"), "PNG"),
    "LA": encode(with_alpha("L"), "PNG"),
    "1 x 1": encode(picture(1, 1, 1), "PNG"),
    "1 x 500": encode(picture(1, 1, 500), "PNG"),
    "500 x 1": encode(picture(1, 500, 1), "JPEG"),
}


def without_frame_header(encoded):
    start = encoded.index(b"\xff\xc0\0")
    return encoded[:start] + encoded[start + 2 + struct.unpack_from(">H", encoded, start + 2)[0] :]


def with_wrong_checksum(encoded, kind):
    """The last byte of a PNG's chunk, whose kind is `kind`, changed."""
    at = encoded.index(kind)
    end = at + 8 + struct.unpack_from(">I", encoded, at - 4)[0]
    return encoded[: end - 1] + bytes([encoded[end - 1] ^ 1]) + encoded[end:]


INSIDE, HEADER, OTHER = "cut off, or damaged inside", "its header is damaged", f"no {NAMES}"
TO_PACK = "a WebP, which tools/pack.py converts"
WEBP = encode(picture(2), "WEBP")
BROKEN = {
    "JPEG cut behind its header": (JPEG[: JPEG.index(b"\xff\xda") + 30], INSIDE),
    "JPEG cut in its header": (JPEG[:30], HEADER),
    "JPEG without frame header": (without_frame_header(JPEG), HEADER),
    "JPEG of no height": (jpeg(64, 0), HEADER),
    "bomb": (jpeg(50_000, 40_000), "50,000 x 40,000 pixels, more than 178,956,970"),
    "PNG bomb": (png(2**31 + 5, 3), "2,147,483,653 x 3 pixels, more than 178,956,970"),
    "half a PNG": (PNG[: len(PNG) // 2], INSIDE),
    "PNG cut in its header": (PNG[:20], HEADER),
    "wrong checksum of pixels": (with_wrong_checksum(PNG, b"IDAT"), INSIDE),
    "wrong checksum of the header": (with_wrong_checksum(PNG, b"IHDR"), INSIDE),
    "no deflate": (
        png(2, 2).replace(zlib.compress(bytes(14)), b"a" * len(zlib.compress(bytes(14)))),
        INSIDE,
    ),
    "GIF": (encode(picture(1), "GIF"), "a GIF, which tools/pack.py converts"),
    "text": (b"hello", OTHER),
    "zeros": (bytes(2000), OTHER),
    "BMP": (encode(picture(1), "BMP"), OTHER),
    "RIFF of sounds": (b"RIFF\x10\0\0\0WAVEfmt " + bytes(20), OTHER),
    "half a WebP": (WEBP[: len(WEBP) // 2], INSIDE if READS_WEBP else TO_PACK),
    "WebP without a size": (
        b"RIFF\x10\0\0\0WEBPVP8 " + bytes(20),
        HEADER if READS_WEBP else TO_PACK,
    ),
    "empty": (b"", "it is empty"),
}
CONTENTS = {**STRANGE, **{name: encoded for name, (encoded, _) in BROKEN.items()}}
NAMES = list(CONTENTS)


def folder_of(root, contents):
    """A source whose ids count through `contents`."""
    root.mkdir(exist_ok=True)
    for i, encoded in enumerate(contents):
        (root / f"{i:03d}.jpg").write_bytes(encoded)
    return open_folder(root, max_broken=1.0)


def views_of(source, order, broken, start=0, stop=1, scale=SCALE):
    return pipeline.pretraining_batches(
        source,
        order,
        crops=[Crop(SIZE, scale)],
        seed=SEED,
        start_step=start,
        stop_step=stop,
        broken=broken,
    )


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """All of them in one folder, what they turned out to be, and one batch of them all: views,
    ids, weights.
    """
    source = folder_of(tmp_path_factory.mktemp("all"), CONTENTS.values())
    broken, order = BrokenImages(source), epoch_order(len(CONTENTS), len(CONTENTS), seed=1)
    ((((views, _),), ids, weights),) = views_of(source, order, broken).as_numpy_iterator()
    return source, broken, views, ids, weights


def pixels_of(name):
    """uint8 [H, W, 3]: what PIL makes of it; of 16 bits the upper eight, where PIL's conversion
    would clip.
    """
    if "16 bits" in name:
        levels = (LEVELS >> 8).astype(np.uint8)
        return levels if "colour" in name else np.repeat(levels[..., :1], 3, axis=-1)
    return np.asarray(Image.open(io.BytesIO(STRANGE[name])).convert("RGB"))


# PIL rounds to uint8 between its two passes as well, which moves the result by at most one level;
# in CMYK the two multiply ink by paper with roundings of their own, which is one more.
def tolerance(name):
    return 2 if name == "CMYK" else 1


@pytest.mark.parametrize("name", STRANGE)
def test_strange_images_are_decoded_as_pil_decodes_them(everything, name):
    _, _, views, ids, weights = everything
    at, image = ids.tolist().index(NAMES.index(name)), pixels_of(name)
    numbers = tf.random.stateless_uniform([len(ids), 32], tf.constant([SEED, 0], tf.int64)).numpy()[
        at
    ]
    expected = pil_crop(
        image, *window_from(numbers.astype(np.float64), *image.shape[:2], SCALE), SIZE
    )
    assert weights[at] == 1
    assert np.abs(views[at] - expected).max() <= tolerance(name)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_images_get_weight_zero_and_a_reason(everything, name):
    _, broken, views, ids, weights = everything
    number = NAMES.index(name)
    at = ids.tolist().index(number)
    assert weights[at] == 0 and broken.reasons[number] == BROKEN[name][1] == reason(CONTENTS[name])
    assert any((views[at] == view).all() for view in views[weights == 1])


def test_nothing_else_is_noted(everything):
    source, broken, _, ids, weights = everything
    numbers = [NAMES.index(name) for name in BROKEN]
    assert sorted(broken.reasons) == sorted(ids[weights == 0]) == numbers
    assert sorted(broken.new()) == [f"{source.path(i)!r}: {BROKEN[NAMES[i]][1]}" for i in numbers]
    assert broken.new() == []


def test_evaluation_gives_them_black(everything):
    source, broken = everything[0], BrokenImages(everything[0])
    batches = pipeline.evaluation_batches(
        source,
        np.arange(len(NAMES)),
        image_size=SIZE,
        crop_fraction=1.0,
        batch_size=6,
        broken=broken,
    )
    views = np.concatenate(list(batches.as_numpy_iterator()))
    assert [NAMES[i] for i in sorted(broken.reasons)] == list(BROKEN)
    for name, view in zip(NAMES, views, strict=True):
        if name in BROKEN:
            assert (view == 0).all()
        else:
            image = pixels_of(name)
            height, width = image.shape[:2]
            side = min(height, width)
            expected = pil_crop(image, (height - side) // 2, (width - side) // 2, side, side, SIZE)
            assert np.abs(view - expected).max() <= tolerance(name), name


@pytest.mark.parametrize(
    "rewritten", [True, False], ids=["as always", "without tf.data's rewriting"]
)
def test_any_images_of_a_batch_may_be_broken(tmp_path, rewritten):
    """All 16 sets of four: batch n lacks the images that the bits of n say."""
    order = epoch_order(64, 4, seed=0)
    source = folder_of(tmp_path, [encode(picture(i, 9, 9), "PNG") for i in range(64)])
    broken, options = BrokenImages(source), tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = rewritten
    options.autotune.enabled = rewritten
    dataset = views_of(source, order, broken, stop=16).with_options(options)
    good = list(dataset.as_numpy_iterator())
    lost = np.arange(16)[:, None] >> np.arange(4) & 1
    for step, (_, ids, _) in enumerate(good):
        for instance_id in ids[lost[step] == 1]:
            content = (tmp_path / f"{instance_id:03d}.jpg").read_bytes()
            (tmp_path / f"{instance_id:03d}.jpg").write_bytes(content[: len(content) // 2])
    for step, (got, expected) in enumerate(zip(dataset.as_numpy_iterator(), good, strict=True)):
        (((views, random),), ids, weights), (((those, numbers),), same, _) = got, expected
        np.testing.assert_array_equal(ids, same)
        np.testing.assert_array_equal(random, numbers)
        assert weights.tolist() == (1 - lost[step]).tolist()
        np.testing.assert_array_equal(views[weights == 1], those[weights == 1])
    assert len(broken) == lost.sum() == 32


def test_a_jpeg_that_breaks_off_gives_the_same_whenever_a_run_starts(tmp_path):
    """Windows above the break can be decoded, others cannot: that must not depend on what was
    seen before.
    """
    whole = encode(picture(0, 96, 96), "JPEG")
    source = folder_of(
        tmp_path,
        [encode(picture(i, 24, 24), "JPEG") for i in range(3)] + [whole[: len(whole) * 3 // 4]],
    )
    order, scale = epoch_order(4, 4, seed=0), (0.05, 0.3)
    run = list(views_of(source, order, BrokenImages(source), 0, 24, scale).as_numpy_iterator())
    lost = [weights[ids == 3].item() == 0 for _, ids, weights in run]
    assert any(lost[:8])
    restarted = views_of(source, order, BrokenImages(source), 9, 24, scale).as_numpy_iterator()
    for one, other in zip(run[9:], restarted, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)
