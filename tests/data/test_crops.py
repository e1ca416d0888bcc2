"""Crop windows against torchvision's law, crops and decoding against PIL."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pic_tf.data import crops
from pic_tf.data.crops import Crop
from pic_tf.data.decode import headers

SIZE = 16  # of the crops here, in pixels


def natural_image(rng, height, width):
    """uint8 [H, W, 3] with smooth colours and a little noise, so that chroma subsampling has
    something to lose.
    """
    coarse = rng.integers(0, 256, [height // 6 + 2, width // 6 + 2, 3], np.uint8)
    smooth = np.asarray(
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int64
    )
    return np.clip(smooth + rng.integers(-12, 13, smooth.shape), 0, 255).astype(np.uint8)


def encode(image, file_format, **options):
    """(bytes, what PIL decodes from them as uint8 [H, W, 3])."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, file_format, **options)
    return buffer.getvalue(), np.asarray(Image.open(buffer).convert("RGB"))


def pil_crop(image, window, size):
    """The reference: cut out, then resize; PIL's bilinear filter antialiases."""
    top, left, height, width = (int(x) for x in window)
    cut = Image.fromarray(image).crop((left, top, left + width, top + height))
    return np.asarray(cut.resize((size, size), Image.Resampling.BILINEAR)).astype(int)


@tf.function
def crop_encoded(encoded, window):
    size = headers.sizes(encoded[None])[0]
    return crops.crop_encoded(encoded, size, window[None], [Crop(SIZE)])[0][0]


def cut_out(encoded, window):
    """int [16, 16, 3] of one encoded image."""
    return crop_encoded(tf.constant(encoded), tf.constant(window, tf.int32)).numpy().astype(int)


# PIL filters in two passes and rounds to uint8 after the first. That error of at most 1/2 goes
# through the second pass as a mean with weights that sum to 1, so before its rounding the result is
# at most 1/2 off: one level.
ONE_LEVEL = 1
UNBIASED = 0.1  # mean error in levels; to cut off decimals instead of rounding them would be 0.5


@pytest.mark.parametrize("kind", ["noise", "natural"])
@pytest.mark.parametrize(("height", "width", "size"), [(8, 8, 8), (40, 57, 16), (33, 20, 24)])
def test_crop_arrays_against_pil(kind, height, width, size):
    """Windows that shrink, enlarge, do both at once, keep their size, or are one pixel high."""
    rng = np.random.default_rng(2)
    make = (
        natural_image
        if kind == "natural"
        else lambda rng, h, w: rng.integers(0, 256, [h, w, 3], np.uint8)
    )
    images = np.stack([make(rng, height, width) for _ in range(40)])
    lengths = np.stack([rng.integers(1, height + 1, 40), rng.integers(1, width + 1, 40)], axis=1)
    lengths[0] = height, width
    lengths[1] = min(size, height), min(size, width)
    lengths[2] = 1, width
    starts = rng.integers(0, np.array([height, width]) - lengths + 1)
    windows = np.concatenate([starts, lengths], axis=1).astype(np.int32)
    got = crops.crop_arrays(tf.constant(images), tf.constant(windows), size)
    assert got.dtype == tf.uint8 and got.shape == (40, size, size, 3)
    expected = np.stack([pil_crop(image, window, size) for image, window in zip(images, windows)])
    error = got.numpy() - expected
    assert np.abs(error).max() <= ONE_LEVEL
    assert abs(error.mean()) < UNBIASED


def test_crop_arrays_copies_a_window_of_the_output_size():
    images = np.random.default_rng(3).integers(0, 256, [9, 20, 23, 3], np.uint8)
    windows = np.array(
        [(top, left, SIZE, SIZE) for top in (0, 1, 4) for left in (0, 3, 7)], np.int32
    )
    got = crops.crop_arrays(tf.constant(images), tf.constant(windows), SIZE).numpy()
    for view, image, (top, left, height, width) in zip(got, images, windows):
        np.testing.assert_array_equal(view, image[top : top + height, left : left + width])


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_crop_encoded_against_pil(file_format):
    rng = np.random.default_rng(4)
    encoded, decoded = encode(natural_image(rng, 61, 75), file_format)
    # None is enlarged exactly twofold, which gives quarters of a level: PIL rounds their halves up,
    # TensorFlow to even.
    windows = [
        (0, 0, 61, 75), (3, 5, 9, 11), (7, 2, 5, 60), (10, 11, 50, 7), (5, 5, 17, 16), (60, 74, 1, 1), (0, 9, 1, 66)
    ]  # fmt: skip
    for window in windows:
        error = cut_out(encoded, window) - pil_crop(decoded, window, SIZE)
        assert np.abs(error).max() <= ONE_LEVEL, window
        assert abs(error.mean()) < UNBIASED, window


@pytest.mark.parametrize("subsampling", [0, 1, 2])  # 4:4:4, 4:2:2, 4:2:0
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(("height", "width"), [(61, 45), (64, 48), (17, 16)])
def test_jpeg_window_is_bit_exact(height, width, subsampling, progressive):
    """Without a resize the window holds the very pixels PIL decodes: odd and even offsets, all
    borders.
    """
    image = natural_image(np.random.default_rng(5), height, width)
    encoded, decoded = encode(
        image, "JPEG", quality=85, subsampling=subsampling, progressive=progressive
    )
    offsets = [
        sorted({0, 1, 2, 3, 7, 8, 15, 16, 17, n - 1, n} & set(range(n + 1)))
        for n in (height - 16, width - 16)
    ]
    for top in offsets[0]:
        for left in offsets[1]:
            expected = decoded[top : top + SIZE, left : left + SIZE]
            np.testing.assert_array_equal(
                cut_out(encoded, (top, left, SIZE, SIZE)), expected, f"{top}, {left}"
            )


def test_a_png_is_cut_exactly():
    encoded, decoded = encode(natural_image(np.random.default_rng(6), 37, 29), "PNG")
    for top, left in [(0, 0), (21, 13), (5, 8)]:
        expected = decoded[top : top + SIZE, left : left + SIZE]
        np.testing.assert_array_equal(cut_out(encoded, (top, left, SIZE, SIZE)), expected)


@pytest.mark.parametrize(
    ("file_format", "mode"), [("PNG", "RGBA"), ("PNG", "P"), ("PNG", "L"), ("JPEG", "CMYK")]
)
def test_other_colour_modes_become_rgb(file_format, mode):
    image = Image.fromarray(natural_image(np.random.default_rng(7), 30, 30)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, file_format)
    expected = np.asarray(Image.open(buffer).convert("RGB"))[2:18, 9:25]
    # Exact; only in CMYK do the two multiply ink by paper with roundings of their own.
    tolerance = 1 if mode == "CMYK" else 0
    assert np.abs(cut_out(buffer.getvalue(), (2, 9, SIZE, SIZE)) - expected).max() <= tolerance


def test_grayscale_jpeg_gives_three_equal_channels():
    gray = natural_image(np.random.default_rng(8), 40, 33)[..., 0]
    encoded, decoded = encode(gray, "JPEG")
    view = cut_out(encoded, (11, 6, SIZE, SIZE))
    np.testing.assert_array_equal(view, decoded[11:27, 6:22])
    assert (view == view[..., :1]).all() and view.std() > 5


def test_sixteen_bits_a_channel_give_the_upper_eight():
    """What a viewer shows; PIL's own conversion to RGB would clip.

    Both channels of a PNG made by hand.
    """
    levels = np.random.default_rng(12).integers(0, 2**16, [20, 24], np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    view = cut_out(buffer.getvalue(), (2, 3, SIZE, SIZE))
    np.testing.assert_array_equal(view, np.repeat((levels[2:18, 3:19] >> 8)[..., None], 3, axis=-1))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1)])
def test_the_smallest_images(height, width):
    encoded, decoded = encode(natural_image(np.random.default_rng(13), height, width), "PNG")
    window = (0, 0, height, width)
    assert np.abs(cut_out(encoded, window) - pil_crop(decoded, window, SIZE)).max() <= ONE_LEVEL


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_several_crops_of_one_decoding_are_those_of_their_own(file_format):
    """Bit for bit, whatever the box around all windows is: its border must not show in a JPEG's
    chroma.
    """
    encoded, _ = encode(natural_image(np.random.default_rng(9), 90, 120), file_format)
    kinds = [Crop(SIZE, count=2), Crop(8, count=3)]
    windows = [(3, 5, 40, 31), (50, 60, 17, 59), (11, 70, 30, 30), (70, 7, 16, 16), (41, 33, 1, 9)]
    size = headers.sizes(tf.constant([encoded]))[0]
    got = crops.crop_encoded(tf.constant(encoded), size, tf.constant(windows), kinds)
    assert [x.shape for x in got] == [(2, SIZE, SIZE, 3), (3, 8, 8, 3)]
    alone = [
        crops.crop_encoded(tf.constant(encoded), size, tf.constant([window]), [Crop(side)])[0][0]
        for window, side in zip(windows, (SIZE, SIZE, 8, 8, 8))
    ]
    for view, expected in zip([*got[0], *got[1]], alone):
        np.testing.assert_array_equal(view, expected)


def test_real_photographs_decode_as_pil_decodes_them(real_photographs):
    """Windows of the output's size in 200 photographs: no resize, the very pixels; eager = graph
    = data set.
    """
    rng, side = np.random.default_rng(11), 32
    paths = sorted(real_photographs.iterdir())
    records = [path.read_bytes() for path in paths]
    decoded = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    windows = np.array(
        [
            [*(rng.integers(0, n - side + 1) for n in image.shape[:2]), side, side]
            for image in decoded
        ],
        np.int32,
    )

    def cut(record, window):
        return crops.crop_encoded(
            record, headers.sizes(record[None])[0], window[None], [Crop(side)]
        )[0][0]

    batches = tf.data.Dataset.from_tensor_slices((records, windows)).map(cut, num_parallel_calls=4)
    in_graph = tf.function(cut)
    for i, (view, image, (top, left, _, _)) in enumerate(
        zip(batches.as_numpy_iterator(), decoded, windows)
    ):
        np.testing.assert_array_equal(
            view, image[top : top + side, left : left + side], str(paths[i])
        )
        np.testing.assert_array_equal(
            view, in_graph(tf.constant(records[i]), tf.constant(windows[i]))
        )
        if i < 20:
            np.testing.assert_array_equal(
                view, cut(tf.constant(records[i]), tf.constant(windows[i]))
            )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1x224@0.08-1.0", (Crop(224, (0.08, 1.0), 1),)),
        ("1x160@0.14-1.0,3x96@0.08-0.14", (Crop(160, (0.14, 1.0), 1), Crop(96, (0.08, 0.14), 3))),
        ("2x32@0.2-0.2", (Crop(32, (0.2, 0.2), 2),)),
    ],
)
def test_crops_are_read_from_a_text(text, expected):
    assert crops.parse_crops(text) == expected
    assert crops.total(expected) == sum(crop.count for crop in expected)


@pytest.mark.parametrize("broken", ["text", "truncated JPEG", "truncated PNG"])
def test_bytes_that_cannot_be_decoded_raise(broken):
    image = natural_image(np.random.default_rng(10), 64, 64)
    encoded = b"not an image" if broken == "text" else encode(image, broken.split()[1])[0]
    with pytest.raises(tf.errors.InvalidArgumentError):
        cut_out(encoded[: len(encoded) // 2], (40, 40, SIZE, SIZE))
