"""Data sets by name: digits, a folder, its held-out part."""

import pytest
import tensorflow as tf

from pic_tf.data.sources import named
from tests.data.sources.test_sources import assert_one_sentence, write_images


@pytest.mark.parametrize("name, sizes", [("digits", (1500, 297)), ("mnist5k", (4000, 1000))])
def test_dataset_of_a_package(name, sizes):
    train, held_out = named.open_dataset(name)
    assert (len(train), len(held_out)) == sizes
    assert (train.name, held_out.name) == (f"{name} (train)", f"{name} (held_out)")


def test_dataset_is_a_plain_folder(tmp_path):
    train, held_out = named.open_dataset(str(write_images(tmp_path, "cat/a.png", "dog/b.png")))
    assert train.paths == ("cat/a.png", "dog/b.png") and held_out is None


@pytest.mark.parametrize("name", ["val", "validation", "test"])
def test_dataset_with_train_and_held_out_folders(tmp_path, name):
    write_images(
        tmp_path, "train/cat/a.png", "train/dog/b.png", f"{name}/cat/c.png", f"{name}/dog/d.png"
    )
    train, held_out = named.open_dataset(str(tmp_path))
    assert train.path(0) == str(tmp_path / "train/cat/a.png") and len(train) == 2
    assert held_out.path(1) == str(tmp_path / name / "dog/d.png") and len(held_out) == 2
    assert held_out.class_names == train.class_names == ("cat", "dog")


def test_dataset_with_train_but_nothing_held_out(tmp_path):
    train, held_out = named.open_dataset(
        str(write_images(tmp_path, "train/cat/a.png", "train/dog/b.png"))
    )
    assert len(train) == 2 and held_out is None


def test_eval_dataset_comes_before_val(tmp_path):
    write_images(
        tmp_path / "data", "train/cat/a.png", "train/dog/b.png", "val/cat/c.png", "val/dog/d.png"
    )
    write_images(tmp_path / "other", "cat/e.png", "dog/f.png", "dog/g.png")
    train, held_out = named.open_dataset(str(tmp_path / "data"), str(tmp_path / "other"))
    assert len(train) == 2
    assert held_out.path(0) == str(tmp_path / "other/cat/e.png") and held_out.labels.tolist() == [
        0,
        1,
        1,
    ]


def test_labels_count_in_the_classes_of_the_training_set(tmp_path):
    """The held-out set lacks a class in the middle; the numbers of the others stay those of the
    training set.
    """
    write_images(
        tmp_path, "train/ant/a.png", "train/bee/b.png", "train/cat/c.png", "train/dog/d.png"
    )
    write_images(tmp_path, "val/ant/a.png", "val/cat/b.png", "val/dog/c.png", "val/dog/d.png")
    train, held_out = named.open_dataset(str(tmp_path))
    assert train.labels.tolist() == [0, 1, 2, 3]
    assert held_out.labels.tolist() == [0, 2, 3, 3]
    assert held_out.class_names == train.class_names == ("ant", "bee", "cat", "dog")
    assert held_out.read(tf.constant([1]))[0] == (tmp_path / "val/cat/b.png").read_bytes()


def test_unknown_class_in_the_held_out_set(tmp_path):
    write_images(tmp_path, "train/cat/a.png", "train/dog/b.png", "val/cat/c.png", "val/wolf/d.png")
    message = (
        "expected the classes in '.*val' to be among the training set's 2, got 'wolf' besides: "
        "name the classes"
    )
    with pytest.raises(ValueError, match=message) as error:
        named.open_dataset(str(tmp_path))
    assert_one_sentence(error)


def test_held_out_set_without_labels_stays_so(tmp_path):
    write_images(tmp_path, "train/cat/a.png", "train/dog/b.png", "val/c.png")
    train, held_out = named.open_dataset(str(tmp_path))
    assert train.labels is not None and held_out.labels is None


@pytest.mark.parametrize("dataset", ["", "nowhere", "digit"])
def test_dataset_that_does_not_exist(tmp_path, monkeypatch, dataset):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"expected (a folder of )?images") as error:
        named.open_dataset(dataset)
    assert_one_sentence(error)


def test_eval_dataset_that_does_not_exist(tmp_path):
    with pytest.raises(
        ValueError, match=r"expected a folder of images at '.*nowhere', got nothing there"
    ) as error:
        named.open_dataset("digits", str(tmp_path / "nowhere"))
    assert_one_sentence(error)


def test_a_held_out_set_of_one_class_keeps_its_label(tmp_path):
    write_images(tmp_path, "train/ant/a.png", "train/cat/b.png", "val/cat/c.png", "val/cat/d.png")
    train, held_out = named.open_dataset(str(tmp_path))
    assert held_out.labels.tolist() == [1, 1]
    assert held_out.class_names == train.class_names == ("ant", "cat")
