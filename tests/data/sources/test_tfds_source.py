"""Sources by name against what was written into small data sets, and the sentences wrong input
gets.
"""

import io
import re
import resource
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging
from array_record.python.array_record_module import ArrayRecordReader

from pic_tf.data.sources import tfds_source
from pic_tf.data.sources.classes import classes_of
from pic_tf.data.sources.formats import NAMES
from pic_tf.data.sources.tfds_source import open_tfds
from tests.data.sources.test_sources import assert_one_sentence
from tests.data.sources.tfds_sets import (
    CLASSES,
    PICTURE,
    SPLITS,
    encoded,
    prepare_features,
    written,
)


def test_holds_what_was_written(root):
    """In an order of its own, but each image once and with its label."""
    for split in SPLITS:
        source = open_tfds(str(root / "tiny_pictures/1.2.0"), split)
        images = source.read(tf.range(len(source), dtype=tf.int64)).numpy().tolist()
        labels = np.asarray(source.labels)
        assert len(source) == len(source.labels) == SPLITS[split]
        assert labels.dtype == np.int64
        assert sorted(zip(images, labels.tolist())) == sorted(written(split))
    assert source.class_names == CLASSES and source.folder == str(root / "tiny_pictures/1.2.0")


def test_eager_graph_and_dataset_agree(root):
    """The oracle reads the files one after another."""
    folder = root / "tiny_pictures/1.2.0"
    source = open_tfds(str(folder))
    readers = [ArrayRecordReader(str(path)) for path in sorted(folder.glob("*-train.*"))]
    examples = [
        tf.train.Example.FromString(record) for reader in readers for record in reader.read_all()
    ]
    expected = [example.features.feature["image"].bytes_list.value[0] for example in examples]
    ids = np.random.default_rng(0).integers(0, len(source), [40, 8])
    for read in (source.read, tf.function(source.read)):
        assert read(tf.constant(ids[0])).numpy().tolist() == [expected[i] for i in ids[0]]
        assert read(tf.zeros([0], tf.int64)).shape == [0]
    batches = tf.data.Dataset.from_tensor_slices(ids).map(source.read, num_parallel_calls=4)
    assert batches.element_spec == tf.TensorSpec([8], tf.string)
    assert [batch.tolist() for batch in batches.as_numpy_iterator()] == [
        [expected[i] for i in row] for row in ids
    ]


def test_ids_that_are_none(root):
    source = open_tfds(str(root / "tiny_pictures/1.2.0"))
    for ids in ([0, len(source)], [-1, 0]):
        with pytest.raises(
            (ValueError, tf.errors.InvalidArgumentError), match=r"expected ids in \[0, 29\), got"
        ):
            source.read(tf.constant(ids, tf.int64))
    with pytest.raises(IndexError):
        source.labels[[len(source)]]
    with pytest.raises(IndexError):
        source.path(len(source))


def test_labels_are_read_on_demand(root, monkeypatch):
    monkeypatch.setattr(tfds_source, "_READ_AT_ONCE", 4)
    source = open_tfds(str(root / "tiny_pictures/1.2.0"), "train")
    label_of = dict(written("train"))
    images = source.read(tf.range(len(source), dtype=tf.int64)).numpy()
    expected = np.array([label_of[image] for image in images])
    ids = np.array([28, 0, 3, 3, 17, 5, 11, 28, 1])
    seen = []
    inner = source.records.read
    monkeypatch.setattr(source.records, "read", lambda ids: seen.append(ids.tolist()) or inner(ids))
    np.testing.assert_array_equal(source.labels[ids], expected[ids])
    assert seen == [
        ids[:4].tolist(),
        ids[4:8].tolist(),
        ids[8:].tolist(),
    ]  # these records and no others
    assert source.labels[ids].dtype == np.int64
    np.testing.assert_array_equal(source.labels[5:9], expected[5:9])
    assert source.labels[7] == expected[7] and source.labels[np.zeros([0], int)].shape == (0,)
    np.testing.assert_array_equal(source.labels[ids.reshape(3, 3)], expected[ids.reshape(3, 3)])


def test_images_without_a_label_have_no_class(root, monkeypatch):
    """TensorFlow Datasets stores -1 for none, which Python takes for the last class."""
    source = open_tfds(str(root / "tiny_pictures/1.2.0"), "train")
    labels = np.asarray(source.labels)
    names = [CLASSES[label] if label >= 0 else "" for label in labels]
    assert classes_of(source, range(len(source))) == names and "" in names
    monkeypatch.setattr(tfds_source, "_LOOKED_AT", 1)
    without = int(np.argmin(labels))  # a part that begins with it
    part = open_tfds(str(root / "tiny_pictures/1.2.0"), f"train[{without}:]")
    assert part.labels is None and part.class_names == () and "-1" in part.unlabelled
    assert classes_of(part, [0, 1]) == ["", ""]


def test_parts_of_splits(root):
    """A part of a split and a sum of splits hold the records of the whole, from the right
    places.
    """
    folder = str(root / "tiny_pictures/1.2.0")
    whole = {split: open_tfds(folder, split) for split in SPLITS}
    images = {
        s: x.read(tf.range(len(x), dtype=tf.int64)).numpy().tolist() for s, x in whole.items()
    }
    part = open_tfds(folder, "train[10:26]+test[8:]")
    assert part.read(tf.range(18)).numpy().tolist() == images["train"][10:26] + images["test"][8:]
    assert [part.path(i) for i in (0, 15)] == [whole["train"].path(i) for i in (10, 25)]
    assert part.path(17) == whole["test"].path(9)
    assert len(open_tfds(folder, "train[:50%]")) == 14


def test_path_names_the_record(root):
    """Read back by the name alone, with ArrayRecord's own reader."""
    source = open_tfds(str(root / "tiny_pictures/1.2.0"))
    for i, image in enumerate(source.read(tf.range(len(source))).numpy()):
        path, position = re.fullmatch(r"(.*)\[(\d+)\]", source.path(i)).groups()
        record = tf.train.Example.FromString(ArrayRecordReader(path).read([int(position)])[0])
        assert record.features.feature["image"].bytes_list.value[0] == image


def test_fingerprint_is_of_the_records_not_of_the_place(root, tmp_path):
    folder, moved = str(root / "tiny_pictures/1.2.0"), tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    prints = [
        open_tfds(folder, split).fingerprint()
        for split in ("train", "test", "train[1:]", "train+test")
    ]
    copy = open_tfds(str(moved), "train[:100%]")
    assert copy.fingerprint() == prints[0]
    info = moved / "dataset_info.json"
    info.write_text(info.read_text().replace("1.2.0", "1.3.0"))
    prints.append(open_tfds(str(moved)).fingerprint())
    with open(next(moved.glob("tiny_pictures-train.array_record-00001-*")), "ab") as file:
        file.write(bytes(1))
    prints.append(copy.fingerprint())
    assert len(set(prints)) == 6


def test_labels_count_in_the_classes_of_the_training_set(root):
    folder, names = str(root / "tiny_pictures/1.2.0"), ("cat", "dog", "bee", "ant")
    source = open_tfds(folder, "validation", class_names=names)
    assert source.class_names == names
    own = np.asarray(open_tfds(folder, "validation").labels)
    assert np.asarray(source.labels).tolist() == [
        {0: 3, 1: 2, 2: 0, -1: -1}[label] for label in own
    ]
    assert set(own) == {-1, 0, 1, 2}


def test_unknown_class_in_the_held_out_set(root):
    message = (
        r"expected the classes in '.*' to be among the training set's 2, got 'bee' besides: name "
        r"the classes"
    )
    with pytest.raises(ValueError, match=message) as error:
        open_tfds(str(root / "tiny_pictures/1.2.0"), "test", class_names=("ant", "cat"))
    assert_one_sentence(error)


def test_several_features_of_a_kind(tmp_path):
    """One is called as expected; or else none of several labels is taken."""
    label = tfds.features.ClassLabel(names=CLASSES)
    features = {
        "image": PICTURE,
        "mask": PICTURE,
        "label": label,
        "quality": tfds.features.ClassLabel(num_classes=2),
    }
    record = {"image": encoded(3), "mask": encoded(4), "label": "bee", "quality": 1}
    record |= {key: io.BytesIO(record[key]) for key in ("image", "mask")}
    source = open_tfds(prepare_features(tmp_path / "a", features, record))
    assert source.read(tf.constant([0])).numpy().tolist() == [encoded(3)]
    assert np.asarray(source.labels).tolist() == [1] and source.class_names == CLASSES
    features = {"view": PICTURE, "kind": label, "quality": features["quality"]}
    record = {"view": io.BytesIO(encoded(5)), "kind": 1, "quality": 1}
    source = open_tfds(prepare_features(tmp_path / "b", features, record))
    assert source.read(tf.constant([0])).numpy().tolist() == [encoded(5)]
    assert source.labels is None and source.class_names == ()


def test_one_label_of_another_name(tmp_path):
    features = {"view": PICTURE, "kind": tfds.features.ClassLabel(num_classes=4)}
    source = open_tfds(
        prepare_features(tmp_path, features, {"view": io.BytesIO(encoded(5)), "kind": 2})
    )
    assert np.asarray(source.labels).tolist() == [2] and source.class_names == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("features", "record", "got"),
    [
        (
            {"left": PICTURE, "right": PICTURE},
            {"left": np.zeros([2, 2, 3], np.uint8), "right": np.zeros([2, 2, 3], np.uint8)},
            r"expected one Image in the records of '.*', .* got 'left' \(Image\), 'right' "
            r"\(Image\): choose",
        ),
        (
            {"pixels": tfds.features.Tensor(shape=(2, 2, 3), dtype=np.float32)},
            {"pixels": np.zeros([2, 2, 3], np.float32)},
            r"got 'pixels' \(Tensor\): choose",
        ),
        (
            {"film": tfds.features.Video(shape=(None, 2, 2, 3))},
            {"film": np.zeros([4, 2, 2, 3], np.uint8)},
            r"got 'film' \(Video\): choose",
        ),
        (
            {"depth": tfds.features.Image(shape=(None, None, 1), dtype=np.float32)},
            {"depth": np.zeros([2, 2, 1], np.float32)},
            rf"expected {NAMES} images in 'depth' of '.*', got pixels of float32: choose",
        ),
        (
            {"image": PICTURE},
            {"image": io.BytesIO(b"this is text")},
            rf"expected {NAMES} images in 'image' of '.*', got one that starts with b'this is ' "
            r"in '.*\[0\]': ",
        ),
        (
            {"image": PICTURE},
            {"image": io.BytesIO(encoded(0, "GIF"))},
            rf"expected {NAMES} images in 'image' of '.*', got a GIF in '.*\[0\]': pack it with "
            r"`python tools/pack.py --source=tfds:/.*:train --output=PACKED`$",
        ),
    ],
)
def test_no_images(tmp_path, features, record, got):
    folder = prepare_features(tmp_path, features, record)
    with pytest.raises(ValueError, match=got) as error:
        open_tfds(folder)
    assert_one_sentence(error)


@pytest.mark.parametrize(
    ("damage", "got"),
    [
        (lambda file: file.unlink(), "No such file or directory"),
        (lambda file: file.write_bytes(file.read_bytes()[:99]), "a damaged file"),
    ],
)
def test_a_file_is_missing_or_broken(root, tmp_path, damage, got):
    shutil.copytree(root / "tiny_pictures/1.2.0", tmp_path / "1.2.0")
    damage(next(tmp_path.glob("1.2.0/*train.array_record-00002-*")))
    with pytest.raises(
        ValueError, match=rf"expected 10 records in '.*-00002-of-00003', got {got}: "
    ) as error:
        open_tfds(str(tmp_path / "1.2.0"))
    assert_one_sentence(error)
    assert len(open_tfds(str(tmp_path / "1.2.0"), "test")) == SPLITS["test"]


def test_more_files_than_may_be_open(root, monkeypatch):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (500, hard))
        open_tfds(str(root / "tiny_pictures/1.2.0"), "train+test")
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (506, hard)  # three files a split
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 128))
    with pytest.raises(
        ValueError, match=r"expected .* 203 open .* in 3, got a limit of 128: .*`ulimit -n 203`"
    ) as error:
        open_tfds(str(root / "tiny_pictures/1.2.0"))
    assert_one_sentence(error)


def test_quiet(root, capfd, caplog, monkeypatch):
    monkeypatch.setattr(
        logging, "_log_counter_per_token", {}
    )  # what absl says only once a process, it says again
    source = open_tfds(str(root / "tiny_pictures/1.2.0"))
    source.read(tf.range(len(source)))
    np.asarray(source.labels)
    assert capfd.readouterr() == ("", "") and not caplog.records
