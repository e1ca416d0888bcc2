"""Images of other channels or bits than RGB of 8, decoded as the libraries that wrote them do."""

import io

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

from pic_tf.data.crops import Crop
from pic_tf.data.decode import bands
from pic_tf.data.decode.broken import BrokenImages, reason
from pic_tf.data.order import SlidingWindow
from pic_tf.data.pipeline import evaluation_batches, pretraining_batches
from pic_tf.data.sources.band_formats import format_in
from pic_tf.data.sources.folder import open_folder
from pic_tf.data.sources.named import open_dataset
from pic_tf.data.sources.pixel_format import PixelFormat
from tests.data.images import natural_images


def levels(height, width, channels, bits, seed=0):
    kind = np.uint8 if bits == 8 else np.uint16
    random = np.random.default_rng(seed)
    return random.integers(0, 2**bits, [height, width, channels]).astype(kind)


def as_tiff(image, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, image, photometric="minisblack", **options)
    return file.getvalue()


def as_picture(image, kind, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


FILES = [  # (image, its file)
    *(
        (image, tf.io.encode_png(image).numpy())
        for image in (levels(7, 5, c, bits) for c in (1, 2, 3, 4) for bits in (8, 16))
        if image.shape[2] != 3 or image.dtype == np.uint16
    ),
    (levels(7, 5, 1, 16, 1), as_picture(levels(7, 5, 1, 16, 1)[..., 0], "PNG")),
    (levels(6, 9, 1, 8, 2), as_tiff(levels(6, 9, 1, 8, 2)[..., 0])),
    (levels(6, 9, 5, 16, 3), as_tiff(levels(6, 9, 5, 16, 3), planarconfig="contig")),
    (
        levels(6, 9, 5, 8, 4),
        as_tiff(levels(6, 9, 5, 8, 4).transpose(2, 0, 1), planarconfig="separate"),
    ),
    (  # pages of one channel each, levels with their large byte first
        levels(6, 9, 7, 16, 5),
        as_tiff(levels(6, 9, 7, 16, 5).transpose(2, 0, 1), byteorder=">"),
    ),
    (  # pages along two axes
        levels(6, 9, 10, 8, 6),
        as_tiff(levels(6, 9, 10, 8, 6).transpose(2, 0, 1).reshape(5, 2, 6, 9)),
    ),
]


@pytest.mark.parametrize(("image", "encoded"), FILES)
def test_decoding_gives_the_levels_that_were_written(image, encoded):
    pixels = PixelFormat(image.shape[2], 8 * image.dtype.itemsize)
    assert format_in(io.BytesIO(encoded)) == pixels
    np.testing.assert_array_equal(bands.sizes(tf.constant([encoded])), [image.shape[:2]])
    got = bands.decode_bands(bands.harmless(tf.constant([encoded]))[0], pixels)
    assert got.dtype == pixels.dtype
    np.testing.assert_array_equal(got, image)


def test_a_gray_jpeg_is_decoded_as_pillow_does():
    encoded = as_picture(natural_images(1, 24, 16)[0, :, :, 0], "JPEG", quality=90)
    expected = np.asarray(Image.open(io.BytesIO(encoded)))[..., None]
    np.testing.assert_array_equal(
        bands.decode_bands(tf.constant(encoded), PixelFormat(1)), expected
    )


OTHERS = {  # what is expected and what came
    "colours": (PixelFormat(1), as_picture(natural_images(1, 8, 8)[0], "PNG")),
    "a JPEG in colours": (PixelFormat(1), as_picture(natural_images(1, 8, 8)[0], "JPEG")),
    "8 bits": (PixelFormat(1, 16), as_picture(levels(8, 8, 1, 8)[..., 0], "PNG")),
    "16 bits": (PixelFormat(1), as_picture(levels(8, 8, 1, 16)[..., 0], "PNG")),
    "fewer bands": (PixelFormat(6, 16), as_tiff(levels(8, 8, 5, 16), planarconfig="contig")),
    "a PNG that breaks off": (PixelFormat(1), as_picture(levels(9, 9, 1, 8)[..., 0], "PNG")[:-40]),
    "text": (PixelFormat(2, 16), b"not an image, but text"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_an_image_of_another_format_is_refused_with_its_reason(name):
    pixels, encoded = OTHERS[name]
    with pytest.raises((tf.errors.OpError, ValueError)):
        bands.decode_bands(tf.constant(encoded), pixels)
    found = format_in(io.BytesIO(encoded))
    expected = {
        None: "no PNG, JPEG or TIFF, or one whose header is damaged",
        pixels: "cut off, or damaged inside",
    }.get(found, f"{found}, where {pixels} are expected")
    assert reason(encoded, pixels) == expected


def write(folder, images, name):
    for i, image in enumerate(images):
        path = folder / f"class{i % 2}" / f"{i:02d}{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded = tf.io.encode_png(image).numpy() if name == ".png" else None
        path.write_bytes(encoded or as_tiff(image, planarconfig="contig"))
    return folder


@pytest.mark.parametrize(("channels", "bits", "name"), [(1, 16, ".png"), (6, 8, ".tif")])
def test_a_folder_gives_its_levels_whole_and_in_crops(tmp_path, channels, bits, name):
    """The central view of a square image at its own size is the image itself; a broken one is
    listed, and its crops are those of another.
    """
    images = [levels(10, 10, channels, bits, seed) for seed in range(6)]
    folder = write(tmp_path, images, name)
    (folder / "class1" / f"05{name}").write_bytes(b"nothing")
    pixels = PixelFormat(channels, bits)
    source, _ = open_dataset(str(folder), max_broken=0.5, pixels=pixels)
    assert source.pixels == pixels and source.class_names == ("class0", "class1")
    order = [0, 2, 4, 1, 3, 5]
    broken = BrokenImages(source)
    options = {"image_size": 10, "crop_fraction": 1.0, "broken": broken}
    [views] = evaluation_batches(source, range(6), **options)
    for got, i in zip(views.numpy()[:5], order):
        np.testing.assert_array_equal(got, images[i])
    assert not views[5].numpy().any() and list(broken.reasons) == [5]
    batches = pretraining_batches(
        source,
        SlidingWindow(6, 6, 6, 6, 0),
        crops=[Crop(5)],
        seed=0,
        start_step=0,
        stop_step=2,
        broken=broken,
    )
    for ((crops, _),), ids, weights in batches:
        assert crops.shape == [6, 5, 5, channels] and crops.dtype == pixels.dtype
        np.testing.assert_array_equal(weights, np.asarray(ids) != 5)
        assert crops.numpy().reshape(6, -1).any(axis=1).all()


def test_a_folder_of_other_images_is_refused(tmp_path):
    write(tmp_path, [levels(4, 4, 3, 16)] * 4, ".png")
    message = (
        "expected an image of 1 channel of 16 bits in '.*00.png', got 3 channels of 16 bits, as 4 "
        r"of 4 are others \(see --channels and --bit_depth\): remove"
    )
    with pytest.raises(ValueError, match=message):
        open_folder(tmp_path, pixels=PixelFormat(1, 16))


def test_tiffs_of_a_compression_that_needs_a_package_are_refused(tmp_path, monkeypatch):
    """Not called damaged."""
    Image.fromarray(levels(4, 4, 1, 16)[..., 0]).save(tmp_path / "0.tif", compression="tiff_lzw")
    monkeypatch.setattr(tifffile.TIFF, "DECOMPRESSORS", {1: None})  # no compression
    sentence = "expected imagecodecs for TIFF files compressed by LZW, got none: pip install"
    with pytest.raises(ValueError, match=f"^{sentence}"):
        open_folder(tmp_path, pixels=PixelFormat(1, 16))
    assert reason((tmp_path / "0.tif").read_bytes(), PixelFormat(1, 16)).startswith(sentence)


def test_tiffs_without_tifffile_are_refused(tmp_path, monkeypatch):
    write(tmp_path, [levels(4, 4, 5, 16)] * 2, ".tif")
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(ValueError, match="expected tifffile for TIFF files, got none: pip install"):
        open_folder(tmp_path, pixels=PixelFormat(5, 16))
