"""Packed images of other channels or bits than RGB of 8: the files as they are, or their levels."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pic_tf.data.decode.bands import decode_bands, encode_bands
from pic_tf.data.packing.processes import pack_source
from pic_tf.data.sources import packed
from pic_tf.data.sources.pixel_format import PixelFormat
from tests.data.packing.pictures import left_out, records


def smooth_levels(height, width, channels, seed):
    """uint16 [height, width, channels] that a filter leaves as they are, but for its rounding."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    slopes = np.random.default_rng(seed).uniform(0, 20_000, [channels, 3])
    return np.stack([a + b * x + c * y for a, b, c in slopes], axis=2).astype(np.uint16)


@pytest.mark.parametrize("channels", [1, 6])
def test_records_are_the_files_or_shrunk_levels(pack, tmp_path, channels):
    pixels = PixelFormat(channels, 16)
    small, large = (smooth_levels(h, w, channels, h) for h, w in ((20, 30), (80, 96)))
    files = {"a/small.img": encode_bands(small), "b/large.img": encode_bands(large)}
    files["b/other.img"] = encode_bands(small[..., :1].astype(np.uint8))
    for name, encoded in files.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)
    pack(tmp_path / "in", tmp_path / "out", short_side=40, pixels=pixels)
    found = records(tmp_path / "out")
    assert found["a/small.img"] == files["a/small.img"]
    shrunk = decode_bands(tf.constant(found["b/large.img"]), pixels).numpy()
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(large, 2, 0)]
    expected = [np.asarray(x.resize((48, 40), Image.Resampling.BILINEAR)) for x in planes]
    assert shrunk.shape == (40, 48, channels)
    np.testing.assert_allclose(shrunk, np.stack(expected, 2), atol=0.5)  # rounded
    assert left_out(tmp_path / "out") == {
        "b/other.img": f"ValueError: 1 channel of 8 bits, where {pixels} are expected"
    }
    source = packed.open_packed(tmp_path / "out", pixels=pixels)
    assert source.pixels == pixels and source.class_names == ("a", "b")
    with pytest.raises(
        ValueError, match=f"expected images of 2 channels of 16 bits.*got {pixels} "
    ):
        packed.open_packed(tmp_path / "out", pixels=PixelFormat(2, 16))
    # The same command without its flags, and a format for what was packed without any.
    sentence = f"^expected --channels={channels} --bit_depth=16, the format of the images in "
    with pytest.raises(ValueError, match=sentence):
        pack(tmp_path / "in", tmp_path / "out", short_side=40)
    (tmp_path / "gray").mkdir()
    (tmp_path / "gray" / "0.png").write_bytes(files["b/other.img"])
    pack(tmp_path / "gray", tmp_path / "rgb", short_side=40)
    pack(tmp_path / "gray", tmp_path / "rgb", short_side=40)
    with pytest.raises(ValueError, match=f"^expected images of {pixels} in .*, got 1 channel of 8"):
        pack(tmp_path / "gray", tmp_path / "rgb", short_side=40, pixels=pixels)


def test_bands_without_tifffile_stop_before_the_first_file(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    how = {"short_side": 0, "quality": 90, "images_per_shard": 9, "workers": 1}
    with pytest.raises(ValueError, match="expected tifffile for TIFF files, got none"):
        list(pack_source(str(tmp_path), "", tmp_path / "out", pixels=PixelFormat(6), **how))
