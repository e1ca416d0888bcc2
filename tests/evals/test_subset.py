"""Which labels a protocol may use."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.data.sources.array import ArraySource
from pic_tf.data.sources.folder import open_folder
from pic_tf.evals.subset import Subset, listed, stratified


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.35, 1.0])
def test_stratified_takes_the_share_of_every_class(fraction):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [400, 200, 70, 3]))
    ids = stratified(labels, fraction, 0)
    counts = collections.Counter(labels[ids].tolist())
    assert counts == {c: max(1, round(fraction * n)) for c, n in enumerate([400, 200, 70, 3])}
    assert np.all(np.diff(ids) > 0)
    np.testing.assert_array_equal(ids, stratified(labels, fraction, 0))
    if fraction < 1:
        assert not np.array_equal(ids, stratified(labels, fraction, 1))


def test_subset_has_the_images_and_labels_of_its_ids():
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), dtype=np.uint8)
    whole = ArraySource(images, np.arange(7) * 10, tuple("abcdefg"), "letters")
    part = Subset(whole, np.array([6, 1, 3]))
    assert len(part) == 3 and part.path(0) == "letters[6]" and part.class_names == whole.class_names
    np.testing.assert_array_equal(part.labels, [60, 10, 30])
    np.testing.assert_array_equal(part.read(tf.constant([2, 0], tf.int64)), images[[3, 6]])
    others = (
        Subset(whole, np.array([6, 1, 2])),
        Subset(ArraySource(255 - images), np.array([6, 1, 3])),
    )
    assert part.fingerprint() not in {other.fingerprint() for other in others}


@pytest.fixture
def folder(tmp_path):
    """Two classes of two images each."""
    for name in ("cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_png(tf.zeros([2, 2, 3], tf.uint8)).numpy())
    return open_folder(tmp_path / "images")


def test_listed_finds_images_by_their_file_names(folder, tmp_path):
    names = tmp_path / "list.txt"
    names.write_text("d.png\nsomewhere/else/a.png\n\n")
    np.testing.assert_array_equal(listed(names, folder), [0, 3])


@pytest.mark.parametrize(
    "text, error",
    [
        (
            "a.png\nz.png\n",
            r"got 'z.png', which is that of 0: use the list of this data set, or --label_fraction",
        ),
        ("\n", "expected names of images in '.*', got an empty file"),
        (
            None,
            "expected a text file with an image's name in each line in --label_ids, got .*No such "
            "file",
        ),
    ],
)
def test_lists_that_do_not_fit(folder, tmp_path, text, error):
    if text is not None:
        (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ValueError, match=error):
        listed(tmp_path / "list.txt", folder)
