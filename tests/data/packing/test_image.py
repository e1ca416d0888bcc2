"""What is stored of an image, and which files are left out."""

import csv
import io
import os
import pathlib
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.data.packing.pictures import SIDE, decoded, exif, left_out, records, save, smooth


def test_images_that_are_small_enough_stay_as_they_are(pack, tmp_path):
    rgb = smooth(SIDE, 50)
    for name, picture, options in [
        ("colour.jpg", rgb, {"quality": 80}),
        ("gray.jpg", rgb[..., 0], {}),
        ("progressive.jpeg", rgb, {"progressive": True}),
        ("rotated.jpg", rgb, {"exif": exif(0x112, 6)}),
        ("gray.png", rgb[..., 1], {}),
        ("colour.png", rgb, {}),
    ]:
        save(tmp_path / "in" / name, picture, **options)
    (tmp_path / "in" / "colour.png").rename(tmp_path / "in" / "png without suffix")
    pack(tmp_path / "in", tmp_path / "out")
    got = records(tmp_path / "out")
    assert sorted(got) == sorted(os.listdir(tmp_path / "in")) and left_out(tmp_path / "out") == {}
    for name, record in got.items():
        assert record == (tmp_path / "in" / name).read_bytes()


def other_pictures():
    """name -> (picture, how to save it, RGB that a viewer shows)."""
    rgb = smooth(SIDE, 20)
    gray = rgb[..., :1].repeat(3, axis=2)
    alpha = np.full([20, SIDE, 1], 100, np.uint8)
    deep = rgb[..., 0].astype(np.uint16) * 256 + 99
    palette = Image.fromarray(rgb).quantize(256)
    of_palette = np.array(palette.getpalette(), np.uint8).reshape(-1, 3)[np.asarray(palette)]
    cmyk = np.concatenate([255 - rgb, np.zeros_like(alpha)], axis=2)
    more = {"save_all": True, "append_images": [Image.fromarray(255 - rgb)]}
    floats = rgb[..., 0] / 10 - 3
    stretched = (floats - floats.min()) / np.ptp(floats) * 255
    return {
        "lossless.webp": (rgb, {"lossless": True}, rgb),
        "a.bmp": (rgb, {}, rgb),
        "a.tif": (rgb, {}, rgb),
        "alpha.png": (np.concatenate([rgb, alpha], axis=2), {}, rgb),
        "gray alpha.png": (np.concatenate([gray[..., :1], alpha], axis=2), {}, gray),
        "palette.png": (palette, {"transparency": 3}, of_palette),
        "16 bits.png": (deep, {}, gray),
        "16 bits.tif": (deep, {}, gray),
        "32 bits.tif": (
            Image.fromarray(floats.astype(np.float32)),
            {},
            stretched[..., None].repeat(3, axis=2),
        ),
        "bits.png": (Image.fromarray(rgb[..., 0] > 127), {}, 255.0 * (gray > 127)),
        "cmyk.jpg": (Image.fromarray(cmyk, "CMYK"), {"quality": 98}, rgb),
        "moving.png": (rgb, more, rgb),
        "moving.webp": (rgb, more | {"lossless": True}, rgb),
    }


def test_all_others_are_stored_as_a_viewer_shows_them(pack, tmp_path):
    """What a folder reads too keeps every level; the others become JPEGs.

    Smooth pictures at quality 98 differ by 0.7 levels on average, the patterns of a palette by 1.2.
    """
    pictures = other_pictures()
    for name, (picture, options, _) in pictures.items():
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        save(tmp_path / "in" / name, image, **options)
    pack(tmp_path / "in", tmp_path / "out", quality=98)
    got = records(tmp_path / "out")
    assert left_out(tmp_path / "out") == {} and sorted(got) == sorted(pictures)
    for name, (*_, expected) in pictures.items():
        if name.endswith((".bmp", ".tif")):
            assert np.abs(decoded(got[name]) - expected).mean() < 2, name
            continue
        with Image.open(io.BytesIO(got[name])) as image:
            assert image.format in ("PNG", "WEBP") and image.mode == "RGB"
            levels = np.asarray(image).astype(float)
        if name == "cmyk.jpg":  # lossy before it was packed
            with Image.open(tmp_path / "in" / name) as original:
                np.testing.assert_array_equal(levels, original.convert("RGB"))
            assert np.abs(levels - expected).mean() < 2
        else:
            np.testing.assert_array_equal(levels, expected, name)


def gifs():
    """name -> (image of a palette, how to save it)."""
    photograph = Image.fromarray(smooth(SIDE, 20)).quantize(256)
    drawing = Image.new("P", (64, SIDE), 0)
    drawing.putpalette([255, 255, 255, 0, 0, 0, 200, 30, 30])
    drawing.paste(1, (8, 8, 40, 12))
    drawing.paste(2, (28, 4, 36, 20))
    return {
        "plain.gif": (photograph, {}),
        "moving.gif": (photograph, {"save_all": True, "append_images": [photograph.rotate(180)]}),
        "interlaced.gif": (photograph, {"interlace": 1}),
        "comment.gif": (photograph, {"comment": b"secret" * 99}),
        "drawing.gif": (drawing, {}),
        "transparent.gif": (
            drawing,
            {"transparency": 0},
        ),  # drawn in black by TensorFlow, in white by viewers
        "gray.gif": (Image.fromarray(smooth(SIDE, 20)[..., 0]), {}),
    }


def test_gifs_become_pngs_of_their_first_frame(pack, tmp_path):
    """Pixel by pixel what their palettes say, also where they are transparent, and what Pillow
    makes of them.
    """
    for name, (image, options) in gifs().items():
        save(tmp_path / "in" / name, image, **options)
    pack(tmp_path / "in", tmp_path / "out", quality=50)
    got = records(tmp_path / "out")
    assert sorted(got) == sorted(gifs()) and left_out(tmp_path / "out") == {}
    for name, (image, _) in gifs().items():
        expected = np.asarray(image)
        if image.mode == "P":
            expected = np.array(image.getpalette(), np.uint8).reshape(-1, 3)[expected]
        else:
            expected = expected[..., None].repeat(3, axis=2)
        with (
            Image.open(io.BytesIO(got[name])) as packed,
            Image.open(tmp_path / "in" / name) as original,
        ):
            assert (packed.format, packed.mode) == ("PNG", "RGB") and b"secret" not in got[name]
            np.testing.assert_array_equal(np.asarray(packed), expected, name)
            np.testing.assert_array_equal(np.asarray(original.convert("RGB")), expected, name)
        np.testing.assert_array_equal(tf.io.decode_png(got[name], channels=3), expected, name)


def test_a_gif_that_is_too_large_is_shrunk_to_a_jpeg(pack, tmp_path):
    image = Image.fromarray(smooth(90, 60)).quantize(256)
    save(tmp_path / "in" / "a.gif", image)
    pack(tmp_path / "in", tmp_path / "out", quality=98)
    expected = image.convert("RGB").resize((48, SIDE), Image.Resampling.BILINEAR)
    assert np.abs(decoded(records(tmp_path / "out")["a.gif"]) - np.asarray(expected)).mean() < 1


def gif_of_size(width, height):
    """A GIF of one pixel that declares a larger frame."""
    buffer = io.BytesIO()
    Image.new("P", (1, 1)).save(buffer, "GIF")
    data = bytearray(buffer.getvalue())
    frame = data.index(b",", 13 + 3 * 2 ** ((data[10] & 7) + 1))
    data[frame + 5 : frame + 9] = struct.pack("<HH", width, height)
    return bytes(data)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((100, 60), (53, 32)),
        ((60, 100), (32, 53)),
        ((33, 500), (32, 484)),
        ((40, 40), (32, 32)),
        ((500, 32), (500, 32)),
    ],
)
@pytest.mark.parametrize("suffix", ["bmp", "jpg"])
def test_large_images_are_shrunk_as_by_torchvision(pack, tmp_path, size, expected, suffix):
    """Sizes by hand: the long side is cut to whole pixels.

    Pixels against Pillow's resize, 1 level of JPEG apart.
    """
    path = save(
        tmp_path / "in" / f"a.{suffix}",
        smooth(*size),
        **({"quality": 95} if suffix == "jpg" else {}),
    )
    pack(tmp_path / "in", tmp_path / "out")
    [record] = records(tmp_path / "out").values()
    with open(tmp_path / "out" / "images-00000.csv") as file:
        [row] = csv.DictReader(file)
    assert (int(row["width"]), int(row["height"])) == expected and int(row["bytes"]) == len(record)
    with Image.open(path) as image:
        resized = np.asarray(image.resize(expected, Image.Resampling.BILINEAR)).astype(float)
    assert np.abs(decoded(record) - resized).mean() < 1
    if expected == size:
        assert suffix == "bmp" or record == path.read_bytes()


def test_short_side_zero_keeps_sizes_and_quality_counts(pack, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, [70, 300, 3], np.uint8)
    path = save(tmp_path / "in" / "a.jpg", noise)
    save(tmp_path / "in" / "b.bmp", noise)
    sizes = {}
    for quality in (50, 95):
        pack(tmp_path / "in", tmp_path / str(quality), short_side=0, quality=quality)
        got = records(tmp_path / str(quality))
        assert got["a.jpg"] == path.read_bytes() and decoded(got["b.bmp"]).shape == (70, 300, 3)
        sizes[quality] = len(got["b.bmp"])
    assert sizes[50] < 0.6 * sizes[95]


def test_what_a_file_says_besides_is_not_copied(pack, tmp_path):
    save(
        tmp_path / "in" / "a.jpg",
        smooth(90, 90),
        comment=b"secret place",
        exif=exif(0x10E, "secret"),
    )
    pack(tmp_path / "in", tmp_path / "out")
    assert b"secret" not in records(tmp_path / "out")["a.jpg"]


def png(width, height):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


def write_bad_files(folder, good):
    """Names of files that are no images, or damaged ones."""
    jpeg = save(folder / "c" / "good.jpg", good).read_bytes()
    whole_png, whole_gif, whole_tiff = (io.BytesIO() for _ in range(3))
    for buffer, kind in ((whole_png, "PNG"), (whole_gif, "GIF"), (whole_tiff, "TIFF")):
        Image.fromarray(good).save(buffer, kind)
    damaged = bytearray(whole_png.getvalue())
    damaged[len(damaged) // 2] ^= 0xFF
    bad = {
        "half.jpg": jpeg[: len(jpeg) // 2],
        "header.jpg": jpeg[:30],
        "half.png": whole_png.getvalue()[: len(damaged) // 2],
        "checksum.png": bytes(damaged),
        "few pixels.png": png(64, 64),
        "bomb.png": png(20_000, 20_000),
        "header.gif": whole_gif.getvalue()[:13],
        "half.gif": whole_gif.getvalue()[: len(whole_gif.getvalue()) // 2],
        "bomb.gif": gif_of_size(20_000, 20_000),
        "half.tif": whole_tiff.getvalue()[: len(whole_tiff.getvalue()) // 2],
        "empty.jpg": b"",
        "text.jpg": b"no image",
        "page.png": b"<html><body>404</body></html>",
        "program.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "noise.bin": np.random.default_rng(0).bytes(3000),
        "labels.csv": b"name,label\n",
        "strange, \nname\xff.jpg": b"",
    }
    for name, content in bad.items():
        path = os.path.join(os.fsencode(folder), b"c", name.encode("latin-1"))
        pathlib.Path(os.fsdecode(path)).write_bytes(content)
    (folder / "c" / "nowhere.jpg").symlink_to("gone")
    os.mkfifo(folder / "c" / "pipe.jpg")
    return {f"c/{os.fsdecode(name.encode('latin-1'))}" for name in bad} | {
        "c/nowhere.jpg",
        "c/pipe.jpg",
    }


def test_bad_files_are_listed_and_stop_nothing(pack, tmp_path):
    good = smooth(50, 40)
    bad = write_bad_files(tmp_path / "in", good)
    save(tmp_path / "in" / "d" / "also good.png", good)
    save(tmp_path / "in" / "d" / ".hidden.png", good)
    save(tmp_path / "in" / ".cache" / "hidden.png", good)
    said = pack(tmp_path / "in", tmp_path / "out")
    listed = left_out(tmp_path / "out")
    assert set(listed) == bad and len(bad) == 19
    assert set(records(tmp_path / "out")) == {"c/good.jpg", "d/also good.png"}
    assert "packed 2 images" in said and "left out 19, see " in said and "left_out.csv" in said
    assert all(listed.values()) and listed["c/text.jpg"] == "no image that Pillow can read"
    assert all("exceeds limit" in listed[f"c/bomb.{suffix}"] for suffix in ("png", "gif"))
    assert "truncated" in listed["c/half.jpg"].lower()
    assert "No such file" in listed["c/nowhere.jpg"] and "not a file" in listed["c/pipe.jpg"]
    assert listed["c/program.eps"] == "no image that Pillow can read"  # no other program is started
