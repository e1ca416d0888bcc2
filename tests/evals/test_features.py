"""Cached features against features made from PIL's pixels and the SavedModel alone."""

import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from PIL import Image

from pic_tf.data.sources.array import ArraySource
from pic_tf.data.sources.folder import open_folder
from pic_tf.evals import features
from pic_tf.evals.features import cached_features
from pic_tf.serving.exported import open_exported
from pic_tf.serving.saved_model import export_backbone
from tests.data.test_crops import natural_image

SIZES = (
    (16, 16),
    (16, 24),
    (33, 16),
    (16, 16),
    (40, 31),
)  # of the images, height and width in pixels


def network():
    inputs = keras.Input([None, None, 3])
    maps = keras.layers.BatchNormalization()(
        keras.layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    )
    return keras.Model(inputs, keras.layers.GlobalMaxPooling2D()(maps), name="tiny")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network whose batch statistics are not the initial ones."""
    keras.utils.set_random_seed(0)
    backbone, path = network(), tmp_path_factory.mktemp("export") / "backbone"
    backbone(tf.random.normal([8, 8, 8, 3]), training=True)
    export_backbone(backbone, path, trained_size=8)
    return open_exported(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images without loss, which every decoder decodes alike: PNG, and JPEG of one colour."""
    folder = tmp_path_factory.mktemp("images")
    for i, (height, width) in enumerate(SIZES):
        Image.fromarray(natural_image(np.random.default_rng(i), height, width)).save(
            folder / f"{i}.png"
        )
    Image.new("RGB", (20, 16), (200, 40, 90)).save(folder / "5.jpg")
    return folder


@pytest.fixture
def folder(images, tmp_path):
    """A copy of them to change."""
    return shutil.copytree(images, tmp_path / "images")


def central_views(folder, eval_crop, size):
    """uint8 [n, size, size, 3] by PIL: centred square, then a bilinear resize where the size is
    another.
    """
    views = []
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            image = image.convert("RGB")
        side = round(eval_crop * min(image.size))
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        views.append(np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)))
    return np.stack(views)


def of(exported, source, cache, image_size=16, eval_crop=1.0, max_broken=0.0):
    return cached_features(
        exported,
        source,
        image_size=image_size,
        eval_crop=eval_crop,
        max_broken=max_broken,
        cache=cache,
    )


@pytest.mark.parametrize(
    "image_size, eval_crop",
    [
        (16, 1.0),  # most of the short sides are 16: nothing to resize there
        (12, 0.875),
    ],
)
def test_features_are_those_of_pils_pixels(exported, images, tmp_path, image_size, eval_crop):
    found, whole = of(exported, open_folder(images), tmp_path / "cache", image_size, eval_crop)
    views = central_views(images, eval_crop, image_size)
    model = tf.saved_model.load(exported.path)

    def expected(views):
        serve = model.signatures["serving_default"]
        return serve(images=tf.constant(views / 255, tf.float32))["features"].numpy()

    assert whole.all() and found.shape == (6, 4) and found.dtype == np.float32
    # A resized level may be rounded to the other side, since PIL's weights are integers. How much
    # that may move a feature is seen where every level is one off.
    slack = np.abs(expected(np.minimum(views, 254) + 1) - expected(views)).max()
    np.testing.assert_allclose(found, expected(views), atol=2 * slack)
    assert np.ptp(found, axis=0).min() > 20 * slack  # the images differ by far more than that
    if (image_size, eval_crop) == (16, 1.0):
        same = [0, 1, 2, 3]  # cut out, not resized
        np.testing.assert_allclose(
            found[same], expected(views)[same], rtol=1e-5, atol=1e-6
        )  # float32


def test_arrays_are_cropped_alike(exported, images, tmp_path):
    pixels = np.stack([np.asarray(Image.open(images / name)) for name in ("0.png", "3.png")])
    found, whole = of(exported, ArraySource(pixels), tmp_path, 8, 0.5)
    serve = tf.saved_model.load(exported.path).signatures["serving_default"]
    expected = serve(images=tf.constant(pixels[:, 4:12, 4:12] / 255, tf.float32))["features"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)  # float32
    assert whole.tolist() == [True, True]


def test_features_that_are_not_finite_are_refused_and_not_kept(images, tmp_path, monkeypatch):
    def broken(views):
        return np.where(np.arange(len(views))[:, None] == 2, np.nan, np.ones([len(views), 3]))

    monkeypatch.setattr(features, "image_features", lambda *_: broken)
    with pytest.raises(
        ValueError, match=r"^expected finite features of .*, got others of 1 of 6 im"
    ):
        of(None, open_folder(images), tmp_path)
    assert not list(tmp_path.glob("*.npy"))


def test_raw_pixels(images, tmp_path):
    """Of views up to 32 x 32 all of them, of larger ones the shrunk view."""
    mean, stddev = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    found, whole = of(None, open_folder(images), tmp_path, 16, 1.0)
    expected = (central_views(images, 1.0, 16) / 255 - mean) / stddev
    assert whole.all() and found.shape == (6, 16 * 16 * 3)
    # A level more or less where PIL rounds to the other side, 1 / 255 / 0.224 of these units.
    np.testing.assert_allclose(found, expected.reshape(6, -1), atol=0.018)
    same = [0, 1, 2, 3, 5]  # cut out, or of one colour
    np.testing.assert_allclose(
        found[same], expected.reshape(6, -1)[same], rtol=1e-5, atol=1e-5
    )  # float32
    large, _ = of(None, open_folder(images), tmp_path, 64, 1.0)
    shrunk = np.stack(
        [
            np.asarray(Image.fromarray(view).resize((32, 32), Image.Resampling.BILINEAR))
            for view in central_views(images, 1.0, 64)
        ]
    )
    shrunk = (shrunk / 255 - mean) / stddev
    # Twice rounded: one level each, and half a level that PIL rounds and we do not.
    np.testing.assert_allclose(large, shrunk.reshape(6, -1), atol=0.045)


def counted(monkeypatch):
    """A list that grows by one with each extraction, which has its views from PIL: that is
    quicker.
    """
    calls = []

    def batches(source, ids, *, image_size, crop_fraction, broken):
        calls.append(source.name)
        if isinstance(source, ArraySource):
            return tf.data.Dataset.from_tensors(source.images)
        return tf.data.Dataset.from_tensors(
            central_views(pathlib.Path(source.folder), crop_fraction, image_size)
        )

    monkeypatch.setattr(features, "evaluation_batches", batches)
    return calls


def test_second_time_they_come_from_the_file(exported, folder, tmp_path, monkeypatch):
    calls, cache = counted(monkeypatch), tmp_path / "a" / "cache"
    first, _ = of(exported, open_folder(folder), cache)
    files = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len(calls) == 1 and len(files) == 2  # the features, and which images could be decoded
    moved = folder.rename(tmp_path / "moved")
    again, whole = of(exported, open_folder(moved), cache)
    assert len(calls) == 1 and files == {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    np.testing.assert_array_equal(first, again)
    assert whole.all()


def test_every_part_of_the_key_counts(exported, folder, tmp_path, monkeypatch):
    """Another image, other views, another backbone, more images: no old features."""
    calls, cache = counted(monkeypatch), tmp_path / "cache"
    before, _ = of(exported, open_folder(folder), cache)
    shutil.copy(folder / "0.png", folder / "1.png")  # another content under the same name
    after, _ = of(exported, open_folder(folder), cache)
    assert len(calls) == 2
    np.testing.assert_array_equal(after[1], after[0])
    np.testing.assert_allclose(
        after[[0, 2, 3, 4, 5]], before[[0, 2, 3, 4, 5]], rtol=1e-5, atol=1e-6
    )  # float32
    os.utime(folder / "2.png", ns=(1, 1))  # touched: it might be another of the same size
    of(exported, open_folder(folder), cache)
    of(exported, open_folder(folder), cache, image_size=8)
    of(exported, open_folder(folder), cache, eval_crop=0.5)
    of(None, open_folder(folder), cache)
    shutil.copy(folder / "0.png", folder / "7.png")
    more, _ = of(exported, open_folder(folder), cache)
    assert len(more) == 7 and len(calls) == 7
    assert len(list(cache.iterdir())) == 2 * 7 and not list(cache.glob("*.partial"))


def test_two_evaluations_at_once(exported, tmp_path, monkeypatch):
    """Another one extracts the same features while the first has written half of them."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    expected, _ = of(exported, ArraySource(pixels), tmp_path / "alone")
    cache, others, write = tmp_path / "cache", [], features._write_rows

    def write_rows(path, parts, count, title):
        def with_another(parts):
            for i, part in enumerate(np.concatenate(list(parts))):
                yield part[None]
                if i == 2:
                    monkeypatch.setattr(features, "_write_rows", write)
                    others.append(of(exported, ArraySource(pixels), cache)[0])

        write(path, with_another(parts), count, title)

    monkeypatch.setattr(features, "_write_rows", write_rows)
    found, _ = of(exported, ArraySource(pixels), cache)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(others[0], expected)
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("ending", [".npy", ".decoded.npy"])
@pytest.mark.parametrize("length", [0, 10, -40])
def test_a_cache_that_is_cut_off_is_not_read(exported, tmp_path, ending, length):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), np.uint8)
    expected = np.array(of(exported, ArraySource(pixels), tmp_path)[0])
    name = next(path.name for path in tmp_path.iterdir() if ".decoded" not in path.name)
    path = tmp_path / name.replace(".npy", ending)
    path.write_bytes(path.read_bytes()[:length])
    found, whole = of(exported, ArraySource(pixels), tmp_path)
    np.testing.assert_array_equal(found, expected)
    assert whole.all()


def test_arrays_are_known_by_their_pixels(exported, tmp_path, monkeypatch):
    calls, pixels = (
        counted(monkeypatch),
        np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8),
    )
    of(exported, ArraySource(pixels), tmp_path)
    of(exported, ArraySource(pixels.copy(), name="another"), tmp_path)
    assert len(calls) == 1
    pixels[1, 2, 3, 0] ^= 1
    of(exported, ArraySource(pixels), tmp_path)
    assert len(calls) == 2


def test_broken_images_are_flagged_and_the_others_are_as_without_them(
    exported, folder, tmp_path, capfd
):
    good, _ = of(exported, open_folder(folder), tmp_path / "good")
    content = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(content[: len(content) // 2])
    for _ in range(2):  # found, and from the cache
        found, whole = of(exported, open_folder(folder), tmp_path / "cache", max_broken=0.2)
        assert whole.tolist() == [True, False, True, True, True, True]
        np.testing.assert_allclose(found[whole], good[whole], rtol=1e-5, atol=1e-6)  # float32
    assert (
        f"broken image, left out: {str(folder / '1.png')!r}: cut off, or damaged inside"
        in capfd.readouterr().err
    )
    with pytest.raises(ValueError, match=r"expected at most 1.000% of the 6 images .* got 1"):
        of(exported, open_folder(folder), tmp_path / "cache", max_broken=0.01)


def test_too_many_broken_images_end_it_each_time(exported, folder, tmp_path):
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:60])
    for _ in range(2):
        with pytest.raises(
            ValueError,
            match=r"expected at most 1.000% of the 6 images to be broken .* got 1, the fir",
        ):
            of(exported, open_folder(folder), tmp_path / "cache", max_broken=0.01)


def test_an_image_that_is_gone_is_named(exported, folder, tmp_path):
    source = open_folder(folder)
    (folder / "3.png").unlink()
    (folder / "3.png").mkdir()
    with pytest.raises(
        ValueError, match=r"expected an image in '.*3.png', got one that cannot be read \("
    ):
        of(exported, source, tmp_path / "cache")


def test_several_batches_are_in_order(exported, tmp_path):
    """More images than one batch of 256, and no multiple of it."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 3), np.uint8)
    found, whole = of(exported, ArraySource(pixels), tmp_path, 4)
    serve = tf.saved_model.load(exported.path).signatures["serving_default"]
    expected = serve(images=tf.constant(pixels / 255, tf.float32))["features"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)  # float32, another batch size
    assert whole.all() and len(whole) == 300
