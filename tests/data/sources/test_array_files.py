"""Arrays in .npy and .npz files against NumPy, mapped and not loaded."""

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.data.sources import array_files
from pic_tf.data.sources.named import open_dataset, open_source
from pic_tf.data.sources.pixel_format import RGB, PixelFormat

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 60_000, [9, 6, 5, 4]).astype(np.uint16)
GRAY = RNG.integers(0, 256, [9, 6, 5]).astype(np.uint8)
LABELS = np.array([7, 3, 7, 11, 3, 3, 7, 11, 3])


def check(source, images, labels=None):
    ids = np.array([4, 0, 8])
    np.testing.assert_array_equal(source.read(tf.constant(ids)), images[ids])
    assert source.pixels == PixelFormat(images.shape[3], 8 * images.dtype.itemsize)
    if labels is None:
        assert source.labels is None
    else:
        assert [source.class_names[i] for i in source.labels] == [str(x) for x in labels]


def test_a_file_a_folder_and_an_archive(tmp_path):
    np.save(tmp_path / "alone.npy", IMAGES)
    check(open_source(str(tmp_path / "alone.npy")), IMAGES)
    folder = tmp_path / "folder"
    folder.mkdir()
    np.save(folder / "images.npy", np.asfortranarray(IMAGES))
    check(open_source(str(folder)), IMAGES)
    np.save(folder / "labels.npy", LABELS)
    source = open_source(str(folder))
    check(source, IMAGES, LABELS)
    assert source.class_names == ("3", "7", "11")  # in the order of numbers, not of letters
    np.savez(tmp_path / "both.npz", labels=LABELS.astype(str), images=IMAGES)
    check(open_source(str(tmp_path / "both.npz")), IMAGES, LABELS)


def test_parts_of_an_archive_and_of_a_folder(tmp_path):
    """The names of MedMNIST: gray images without an axis of channels, labels in a column."""
    names = {"train": GRAY, "val": GRAY[:4], "test": GRAY[4:]}
    arrays = {f"{part}_images": images for part, images in names.items()}
    arrays |= {f"{part}_labels": LABELS[: len(x), None] for part, x in names.items()}
    path = str(tmp_path / "parts.npz")
    np.savez(path, **arrays)
    train, held_out = open_dataset(path)
    check(train, GRAY[..., None], LABELS)
    assert len(held_out) == 4 and held_out.name.endswith(":val")
    assert held_out.class_names == train.class_names
    assert len(open_dataset(path, f"{path}:test")[1]) == 5
    for part, images in names.items():
        (tmp_path / part).mkdir()
        np.save(tmp_path / part / "images.npy", images)
    train, held_out = open_dataset(str(tmp_path))
    assert (len(train), len(held_out)) == (9, 4)


def test_images_are_mapped(tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES)
    np.save(tmp_path / "b.npy", IMAGES)
    for name in ("a.npz", "b.npy"):
        array = open_source(str(tmp_path / name)).images
        while not isinstance(array, np.memmap):
            assert array.base is not None, "in memory"
            array = array.base


def test_the_fingerprint_is_of_shape_and_pixels(tmp_path):
    prints = []
    for i, images in enumerate(
        (IMAGES, IMAGES, IMAGES + 1, IMAGES[:8], IMAGES.reshape(9, 5, 6, 4))
    ):
        np.save(tmp_path / f"{i}.npy", images)
        prints.append(open_source(str(tmp_path / f"{i}.npy")).fingerprint())
    assert prints[0] == prints[1] and len(set(prints)) == 4


def test_other_pixels_are_refused_with_the_flags_to_set(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    with pytest.raises(
        ValueError,
        match=r"expected images of 3 channels of 8 bits in '.*a.npy', got 4 channels of 16 bits: "
        "name others, or train with --channels=4 --bit_depth=16",
    ):
        open_source(str(tmp_path / "a.npy"), pixels=RGB)
    with pytest.raises(ValueError, match="expected images of 1 channel of 8 bits in 'digits"):
        open_dataset("digits", pixels=PixelFormat(1))


def archive(path, **arrays):
    np.savez(path.with_suffix(".npz"), **arrays)
    return path.with_suffix(".npz")


def folder(path, images, labels):
    path.mkdir()
    np.save(path / "images.npy", images)
    np.save(path / "labels.npy", labels)
    return path


def file(path, array, cut=0):
    np.save(path.with_suffix(".npy"), array)
    if cut:
        with open(path.with_suffix(".npy"), "r+b") as opened:
            opened.truncate(cut)
    return path.with_suffix(".npy")


def compressed(path):
    np.savez_compressed(path.with_suffix(".npz"), images=IMAGES)
    return path.with_suffix(".npz")


WRONG = {
    "floats": (lambda p: file(p, IMAGES / 2), r"expected images uint8 or uint16 .* got float64"),
    "one image": (lambda p: file(p, IMAGES[0, :, :, 0]), r"got uint16 \[6, 5\]"),
    "five axes": (lambda p: file(p, IMAGES[None]), r"got uint16 \[1, 9, 6, 5, 4\]"),
    "none": (lambda p: file(p, IMAGES[:0]), r"got uint16 \[0, 6, 5, 4\]"),
    "objects": (lambda p: file(p, np.array([None, 1])), "expected a whole array .* got objects"),
    "cut off": (lambda p: file(p, IMAGES, 500), "expected a whole array of np.save in"),
    "empty": (lambda p: file(p, IMAGES, 5), "expected a whole array of np.save in"),
    "compressed": (compressed, "expected arrays that can be mapped in .* write them again with np"),
    "other names": (
        lambda p: archive(p, x=IMAGES),
        "expected an array images in .*, got x: rename",
    ),
    "parts": (
        lambda p: archive(p, train_images=IMAGES),
        "expected an array images in .*, got train_images: name a part, as .*wrong.npz:train",
    ),
    "too few labels": (lambda p: folder(p, IMAGES, LABELS[:3]), r"labels \[9\], .* int64 \[3\]"),
    "labels between": (lambda p: folder(p, IMAGES, LABELS / 2), r"labels \[9\], .* float64 \[9\]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arrays_get_one_sentence(tmp_path, name):
    make, message = WRONG[name]
    with pytest.raises(ValueError, match=message) as error:
        open_source(str(make(tmp_path / "wrong")))
    assert "\n" not in str(error.value)


def test_one_label_alone_is_none(tmp_path):
    source = open_source(str(folder(tmp_path / "one", IMAGES, LABELS * 0)))
    assert source.labels is None and "have the label '0'" in source.unlabelled
    known = array_files.open_arrays(str(tmp_path / "one"), ("cat", "0"))
    assert known.labels.tolist() == [1] * 9
    with pytest.raises(ValueError, match="among the training set's 1, got '0' besides"):
        array_files.open_arrays(str(tmp_path / "one"), ("1",))
