"""Batches with images that cannot be decoded or read."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.data import pipeline
from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.order import epoch_order
from pic_tf.data.sources.folder import open_folder
from tests.data.batches import (
    COUNT,
    ORDER,
    SEVERAL,
    SIZE,
    SMALLEST,
    all_batches,
    assert_same_bits,
    mark,
    write_folder,
)

BREAK = {
    "jpg": [lambda x: x[: len(x) // 2], lambda x: x[:30], lambda _: b""],
    "png": [
        lambda x: x[: len(x) // 2],
        lambda x: x[:70] + bytes(9) + x[79:],
        lambda _: b"text",
        lambda _: b"GIF89a",
    ],
}


@pytest.fixture(scope="module")
def good_and_broken(folder_source, tmp_path_factory):
    """The folder, and a copy of it in which seven of 21 images are broken, each in another way."""
    root = tmp_path_factory.mktemp("broken")
    ways = {"jpg": iter(BREAK["jpg"]), "png": iter(BREAK["png"])}
    broken = []
    for i in range(COUNT):
        name = folder_source.paths[i]
        content = pathlib.Path(folder_source.path(i)).read_bytes()
        way = next(ways[name[-3:]], None) if i % 3 == 0 or i > 14 else None
        if way:
            content = way(content)
            broken.append(i)
        (root / name).write_bytes(content)
    assert len(broken) == 7
    return folder_source, open_folder(root, max_broken=1.0), broken


@pytest.mark.parametrize(
    "change", [{"crops": SEVERAL}, {"crops": SMALLEST, "augment": mark}], ids=["device", "host"]
)
def test_broken_images_get_weight_zero_and_touch_nothing_else(good_and_broken, change):
    good, source, broken = good_and_broken
    noted = BrokenImages(source)
    expected = all_batches(good, **change)
    dataset = pipeline.pretraining_batches(
        source, ORDER, seed=7, start_step=0, stop_step=12, broken=noted, **change
    )
    got = list(dataset.as_numpy_iterator())
    for (views, ids, weights), (those, same, ones) in zip(got, expected, strict=True):
        np.testing.assert_array_equal(ids, same)
        np.testing.assert_array_equal(weights, ~np.isin(ids, broken))
        assert (ones == 1).all()
        fine = np.flatnonzero(weights)
        for one, other in zip(tf.nest.flatten(views), tf.nest.flatten(those)):
            count = len(one) // len(ids)
            one, other = (x.reshape(len(ids), count, *x.shape[1:]) for x in (one, other))
            np.testing.assert_array_equal(one[fine], other[fine])
            if one.ndim == 5:  # views: those of an image of the batch stand in
                for i in np.flatnonzero(weights == 0):
                    assert not len(fine) or any((one[i] == one[j]).all() for j in fine)
    assert sorted(noted.reasons) == broken
    # They are known now, and decoded no more; nothing else changes, wherever a run starts again.
    before = dict(noted.reasons)
    assert_same_bits(list(dataset.as_numpy_iterator()), got)
    assert_same_bits(all_batches(source, 5, broken=BrokenImages(source), **change), got[5:])
    assert noted.reasons == before


def test_a_batch_of_broken_images_is_black(tmp_path):
    source = write_folder(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(b"text")
    (((views, _),), _, weights) = all_batches(source, 0, 1, epoch_order(6, 2, seed=1))[0]
    assert (weights == 0).all() and (views == 0).all()


def test_evaluation_of_broken_images(good_and_broken):
    good, source, broken = good_and_broken
    noted = BrokenImages(source)
    views, expected = (
        np.concatenate(
            list(
                pipeline.evaluation_batches(
                    images,
                    np.arange(COUNT),
                    image_size=SIZE,
                    crop_fraction=1.0,
                    batch_size=4,
                    broken=noted,
                ).as_numpy_iterator()
            )
        )
        for images in (source, good)
    )
    fine = ~np.isin(np.arange(COUNT), list(noted.reasons))
    assert np.flatnonzero(~fine).tolist() == broken
    np.testing.assert_array_equal(views[fine], expected[fine])


def test_file_that_vanished_ends_the_batches_and_is_named(tmp_path):
    source = write_folder(tmp_path)
    (tmp_path / "4.jpg").unlink()
    with pytest.raises(tf.errors.OpError):
        all_batches(source, 0, 3, epoch_order(6, 2, seed=1))
    assert repr(str(tmp_path / "4.jpg")) in str(pipeline.find_unreadable(source, [5, 4, 3]))
    assert pipeline.find_unreadable(source, [5, 3]) is None


def test_want_of_memory_is_not_looked_for_in_the_images():
    class Unreadable:
        read = None

    with (
        pytest.raises(tf.errors.ResourceExhaustedError),
        pipeline.naming_unreadable(Unreadable, [0]),
    ):
        raise tf.errors.ResourceExhaustedError(None, None, "no room")


def test_nothing_is_named_where_all_is_well(tmp_path, array_source):
    assert pipeline.find_unreadable(write_folder(tmp_path), range(6)) is None
    assert pipeline.find_unreadable(array_source, range(len(array_source))) is None
