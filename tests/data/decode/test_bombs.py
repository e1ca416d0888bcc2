"""Small files that would decode to gigabytes, built by hand: refused by their headers, named,
never decoded.
"""

import io
import json
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pic_tf.data import crops, pipeline
from pic_tf.data.decode import bombs, headers
from pic_tf.data.decode.broken import BrokenImages, reason
from pic_tf.data.order import epoch_order
from pic_tf.data.sources.folder import open_folder
from tests.short_runs import one_epoch, picture_folder, run

pytestmark = pytest.mark.usefixtures("shallow_networks", "empty_exports")

SIZE = 8  # of the crops here, in pixels


def chunk(kind, data):
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deflated_zeros(count):
    """`count` zero bytes as a zlib stream, made without going through all of them."""
    block, encoder = 1 << 20, zlib.compressobj(9)
    first, more = (
        encoder.compress(bytes(block)) + encoder.flush(zlib.Z_FULL_FLUSH) for _ in range(2)
    )
    end = encoder.compress(bytes(count % block)) + encoder.flush()
    adler = struct.pack(">I", count % 65521 << 16 | 1)
    return (
        first + more * (count // block - 1) + end[:-4] + adler
        if count >= block
        else zlib.compress(bytes(count))
    )


def png(width, height, before=b"", after=b"", behind=b""):
    """A black RGB image with further chunks before and after its header, and behind its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    # The pixels of what no decoder would take are left out.
    pixels = chunk(
        b"IDAT", deflated_zeros(height * (1 + 3 * width)) if width * height < 2**29 else b""
    )
    return b"\x89PNG\r\n\x1a\n" + before + header + after + pixels + behind + chunk(b"IEND", b"")


def text(kind=b"zTXt", size=7_900_000):
    """A compressed text, just small enough for libpng to keep it."""
    return chunk(
        kind, b"k\0" + (b"\0" if kind == b"zTXt" else b"\1\0\0\0") + zlib.compress(b"a" * size, 9)
    )


def jpeg(width, height, mode="RGB", **options):
    """64 x 64 gray pixels in a file that declares another size; libjpeg makes up the rest."""
    buffer = io.BytesIO()
    Image.new(mode, (64, 64)).save(buffer, "JPEG", **options)
    data, at = bytearray(buffer.getvalue()), 2
    while data[at + 1] not in (0xC0, 0xC2):  # start of frame, baseline or progressive
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def encode(image, file_format):
    buffer = io.BytesIO()
    image.save(buffer, file_format)
    return buffer.getvalue()


def pictures(count, side=40):
    pixels = np.random.default_rng(0).integers(0, 256, [count, side, side, 3], np.uint8)
    return [Image.fromarray(p) for p in pixels]


def whole(height, width):
    return tf.stack([tf.zeros_like(height), tf.zeros_like(width), height, width], axis=1)


def corner(height, width):
    return tf.constant([[0, 0, SIZE, SIZE]])


def crop(encoded, window_of):
    size = headers.sizes(encoded[None])[0]
    windows = window_of(size[:1], size[1:])
    return crops.crop_encoded(bombs.harmless(encoded[None])[0], size, windows, [crops.Crop(SIZE)])[
        0
    ][0]


crop_in_graph = tf.function(crop)
TOO_LARGE = {
    "png": (png(50_000, 50_000), "50000 x 50000"),
    "png TensorFlow would take": (png(20_000, 20_000), "20000 x 20000"),
    "png one pixel too large": (png(10, 17_895_698), "10 x 17895698"),
    "png negative as int32": (png(2**31 + 5, 2**31 + 5), "2147483653 x 2147483653"),
    "jpeg": (jpeg(50_000, 50_000), "50000 x 50000"),
    "jpeg in gray": (jpeg(20_000, 20_000, "L"), "20000 x 20000"),
    "jpeg in gray, progressive": (jpeg(20_000, 20_000, "L", progressive=True), "20000 x 20000"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
@pytest.mark.parametrize("crop", [crop, crop_in_graph], ids=["eager", "graph"])
def test_too_large_an_image_is_refused(name, crop):
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="expected an image of at most 178,956,970 pixels"
    ):
        crop(tf.constant(TOO_LARGE[name][0]), whole)


def test_the_limit_is_pils():
    assert bombs.MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS
    exact = png(10, 17_895_697)
    assert bombs.harmless(tf.constant([exact])).numpy()[0] == exact
    bombs.check_size(tf.constant([10, 17_895_697]))
    with pytest.raises(tf.errors.InvalidArgumentError):
        bombs.check_size(tf.constant([10, 17_895_698]))


@pytest.mark.parametrize(
    "encoded",
    [png(10_000, 10_000), png(20_000, 5000), jpeg(10_000, 10_000)],
    ids=["png", "wide png", "jpeg"],
)
def test_a_hundred_megapixels_pass(encoded):
    assert crop_in_graph(tf.constant(encoded), corner).shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize(
    "encoded",
    [
        png(
            20_000, 20_000, before=chunk(b"teSt", struct.pack(">II", 9, 9))
        ),  # TensorFlow skips the decoy
        png(9, 9)[:20],
        encode(pictures(1)[0], "GIF"),  # TensorFlow would read it
        b"GIF89a",
        b"BM" + bytes(100),
        b"RIFF\x10\0\0\0WEBPVP8 " + bytes(20),
        b"",
    ],
    ids=["hidden header", "png header", "gif", "gif header", "bmp", "webp", "empty"],
)
@pytest.mark.parametrize("crop", [crop, crop_in_graph], ids=["eager", "graph"])
def test_other_things_are_refused(encoded, crop):
    with pytest.raises(tf.errors.InvalidArgumentError):
        crop(tf.constant(encoded), whole)


def test_good_images_are_not_touched():
    """Every kind, in one batch and alone: a short PNG may hold a text, a long one anything but
    texts.
    """
    one = pictures(1)[0]
    modes = [encode(one.convert(mode), "PNG") for mode in ("RGB", "RGBA", "L", "P", "1")]
    long = encode(pictures(1, 500)[0], "PNG")
    assert len(long) > bombs._SHORT_PNG
    images = [
        *modes,
        long,
        long + b"junk",
        encode(one, "JPEG"),
        encode(one.convert("CMYK"), "JPEG"),
        png(9, 9),
    ]
    for batch in (images, images[:1], images[5:6]):
        assert bombs.harmless(tf.constant(batch)).numpy().tolist() == batch
    small = encode(one, "PNG")
    with_text = small[:33] + text(size=1000) + small[33:]
    assert bombs.harmless(tf.constant([with_text])).numpy()[0] == with_text


@pytest.mark.parametrize("place", ["after", "behind"])
@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
@pytest.mark.parametrize("chunks", [1, 2 * bombs._MOST_CHUNKS])
def test_compressed_texts_are_left_out_of_a_long_png(place, kind, chunks):
    """Also where there are more chunks than the graph looks at."""
    rest = chunk(b"teSt", bytes(bombs._SHORT_PNG // chunks)) * chunks
    encoded = png(9, 9, **{place: rest + text(kind, 1000) * 3})
    expected = png(9, 9, **{place: rest})
    got = bombs.harmless(tf.constant([png(9, 9), encoded])).numpy().tolist()
    assert got == [png(9, 9), expected]


def test_python_is_called_without_state():
    """A stateful call would put the crops of a deterministic run one after the other."""

    def types(graph):
        functions = [graph, *(graph._get_function(name) for name in graph._functions)]
        inner = [f for f in functions[1:] if f is not None]
        return {op.type for op in graph.get_operations()} | {
            n.op for f in inner for n in f.cached_definition.node_def
        }

    spec = [tf.TensorSpec([None], tf.string)]
    found = types(tf.function(bombs.harmless, input_signature=spec).get_concrete_function().graph)
    assert "PyFuncStateless" in found and not found & {"PyFunc", "EagerPyFunc"}


def noted_in(folder, contents):
    """Reasons by id of what the pipeline leaves out of a folder, for views made at random and
    for evaluation.
    """
    for i, encoded in enumerate(contents):
        (folder / f"{i:02d}.png").write_bytes(encoded)
    source, order = (
        open_folder(folder, max_broken=1.0),
        epoch_order(len(contents), len(contents) // 2, seed=0),
    )
    at_random, central = BrokenImages(source), BrokenImages(source)
    kind = [crops.Crop(SIZE, (0.2, 1.0))]
    views = pipeline.pretraining_batches(
        source, order, crops=kind, seed=0, start_step=0, stop_step=2, broken=at_random
    )
    squares = pipeline.evaluation_batches(
        source, np.arange(len(contents)), image_size=SIZE, crop_fraction=0.875, broken=central
    )
    assert [len(list(dataset)) for dataset in (views, squares)] == [2, 1]
    return at_random.reasons, central.reasons


def test_bombs_are_left_out_with_their_sizes(tmp_path):
    """Among pictures, and one that hides texts, which passes."""
    hidden = [png(9, 9, after=text() * 150)]
    good = [encode(picture, "PNG") for picture in pictures(7)] + hidden
    expected = {}
    for i, (encoded, size) in enumerate(TOO_LARGE.values(), len(good)):
        width, height = (f"{int(x):,}" for x in size.split(" x "))
        expected[i] = f"{width} x {height} pixels, more than 178,956,970"
        assert reason(encoded) == expected[i]
    assert noted_in(tmp_path, good + [encoded for encoded, _ in TOO_LARGE.values()]) == (
        expected,
        expected,
    )


MEMORY = """
import json, pathlib, re, sys
import tensorflow as tf
from pic_tf.data import crops
from pic_tf.data.decode import bombs, headers

@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def crop(path):
    encoded = tf.io.read_file(path)
    size = headers.sizes([encoded])[0]
    whole = tf.concat([0 * size, size], axis=0)[None]
    return crops.crop_encoded(bombs.harmless([encoded])[0], size, whole, [crops.Crop(8)])

def peak():  # MB; getrusage would count what the parent had
    return int(re.search("VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) / 1024

results, before = {}, 0
for path in sys.argv[1:]:
    try:
        crop(path)
        outcome = "passes"
    except tf.errors.InvalidArgumentError:
        outcome = "refused"
    results[path] = outcome, peak() - before
    before = peak()
print(json.dumps(results))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_bounded(tmp_path):
    """Less than 200 MB for files that decode to 0.8 GB and more; one within the limit shows that
    it is measured.
    """
    files = {
        "nothing yet": (png(9, 9), "passes"),
        "png": (png(20_000, 20_000), "refused"),  # 1.2 GB
        "hidden png": (
            png(20_000, 20_000, before=chunk(b"teSt", struct.pack(">II", 9, 9))),
            "refused",
        ),
        "jpeg": (jpeg(50_000, 50_000, progressive=True), "refused"),
        "jpeg in gray": (jpeg(23_000, 23_000, "L", progressive=True), "refused"),  # 1 GB
        "png texts": (png(9, 9, after=text() * 150), "passes"),  # 1.2 GB
        "allowed": (png(10_000, 10_000), "passes"),  # 0.3 GB
    }
    for name, (encoded, _) in files.items():
        assert len(encoded) < 2e6
        (tmp_path / name).write_bytes(encoded)
    command = [sys.executable, "-c", MEMORY, *(str(tmp_path / name) for name in files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    results = {
        path.rsplit("/", 1)[1]: result
        for path, result in json.loads(done.stdout.splitlines()[-1]).items()
    }
    assert {name: outcome for name, (outcome, _) in results.items()} == {
        name: want for name, (_, want) in files.items()
    }
    growth = {name: megabytes for name, (_, megabytes) in results.items()}
    assert growth.pop("nothing yet") > 100 and growth.pop("allowed") > 200
    assert max(growth.values()) < 200, growth


@pytest.mark.parametrize(
    "part, number", [("train", 18), pytest.param("val", 24, marks=pytest.mark.slow)]
)
def test_a_run_names_the_bomb(tmp_path, part, number):
    folder = picture_folder(tmp_path / "images")
    path = folder / part / "class0" / f"{number}.jpg"
    path.write_bytes(jpeg(50_000, 50_000))
    with pytest.raises(ValueError) as error:
        run(one_epoch(folder, tmp_path / "run", knn_every=1))
    assert f"{str(path)!r} (50,000 x 50,000 pixels, more than 178,956,970)" in str(error.value)
