"""Split folders or class folders: ordinary layouts, names of classes, what can be read both ways."""

import pytest

from pic_tf.data.packing.files import list_files
from pic_tf.data.sources import named
from pic_tf.data.sources.layout import find_layout
from tests.data.sources.test_sources import assert_one_sentence, write_images


def parts(root, *names, split_folders="auto"):
    """(training part, held-out part) relative to the folder, "." for the folder itself."""
    layout = find_layout(write_images(root, *names), split_folders)
    held_out = layout.held_out and str(layout.held_out.relative_to(root))
    return str(layout.train.relative_to(root)), held_out


SPLITS = {
    "parts": (["train/a.png", "val/b.png"], ("train", "val")),
    "parts of classes": (
        ["train/cat/a.png", "train/dog/b.png", "test/cat/c.png"],
        ("train", "test"),
    ),
    "one part": (["train/cat/a.png", "train/dog/b.png"], ("train", None)),
    "three parts": (["train/a.png", "test/b.png", "val/c.png"], ("train", "val")),
    "capitals": (["Train/cat/a.png", "Train/dog/b.png", "Test/cat/c.png"], ("Train", "Test")),
    "years": (["train2017/a.png", "val2017/b.png"], ("train2017", "val2017")),
    "words": (["train_images/a.png", "test_images/b.png"], ("train_images", "test_images")),
    "other words": (["training/a.png", "testing/b.png"], ("training", "testing")),
    "wrapped": (["x/train/a.png", "x/val/b.png"], ("x/train", "x/val")),
    "wrapped twice": (["x/y/Train/a.png", "x/y/Val/b.png"], ("x/y/Train", "x/y/Val")),
    "besides": (["train/a.png", "test/b.png", "unlabeled/c.png"], ("train", "test")),
    "masks": (["train/a.png", "test/b.png", "train_masks/c.png"], ("train", "test")),
    "other pictures": (["train/cat/a.png", "val/cat/b.png", "plots/c.png"], ("train", "val")),
}
CLASSES = {
    "flat": ["a.png", "b.png"],
    "classes": ["cat/a.png", "dog/b.png"],
    "a class called train": ["airplane/a.png", "bus/b.png", "train/c.png"],
    "classes of classes": ["air/airplane/a.png", "land/bus/b.png", "land/train/c.png"],
    "wrapped classes": ["x/cat/a.png", "x/dog/b.png"],
    "one folder": ["val/a.png"],
    "longer names": ["trains/a.png", "testament/b.png", "training_ship/c.png"],
}
AMBIGUOUS = {
    "classes and parts": (["airplane/a.png", "bus/b.png", "train/c.png", "test/d.png"], "'train'"),
    "a class called test": (["airplane/a.png", "bus/b.png", "test/c.png"], "'test'"),
    "held out twice": (["val/a.png", "test/b.png"], "'val'"),
    "two training parts": (["train/a.png", "Train/b.png"], "'Train'"),
    "two years": (["train2014/a.png", "train2017/b.png", "val2017/c.png"], "'train2014'"),
    "parts in classes": (["a/train/1.png", "a/test/2.png", "b/train/3.png"], "'a/train'"),
    "one more folder": (["train/a.png", "masks/b.png"], "'masks'"),
    "deeper": (["bus/x/a.png", "car/x/b.png", "train/x/c.png", "train/y/d.png"], "'bus'"),
}


@pytest.mark.parametrize("name", SPLITS)
def test_split_folders(tmp_path, name):
    names, expected = SPLITS[name]
    assert parts(tmp_path / "root", *names) == expected
    assert parts(tmp_path / "root", split_folders="none") == (".", None)


@pytest.mark.parametrize("name", CLASSES)
def test_class_folders(tmp_path, name):
    assert parts(tmp_path / "root", *CLASSES[name]) == (".", None)


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_can_be_read_both_ways_is_refused_until_a_flag_settles_it(tmp_path, name):
    names, named_folder = AMBIGUOUS[name]
    write_images(tmp_path / "root", *names)
    for command in (named.open_dataset, list_files):
        with pytest.raises(ValueError, match="expected split folders or class folders") as error:
            command(str(tmp_path / "root"))
        assert_one_sentence(error)
        assert named_folder in str(error.value) and "--split_folders=none" in str(error.value)
    train, held_out = named.open_dataset(str(tmp_path / "root"), split_folders="none")
    assert len(train) == len(names) and held_out is None
    files = list_files(str(tmp_path / "root"), split_folders="none")
    assert [name for name, _ in files[""].named] == sorted(names)


def test_training_and_packing_read_the_same_parts(tmp_path):
    for i, (names, _) in enumerate(SPLITS.values()):
        root = str(write_images(tmp_path / str(i), *names))
        train, held_out = named.open_dataset(root)
        files = list_files(root)
        assert [name for name, _ in files["train"].named] == list(train.paths)
        assert ("val" in files) == (held_out is not None)


def test_what_was_found_is_described(tmp_path):
    def described(name, *names):
        return named.describe(*named.open_dataset(str(write_images(tmp_path / name, *names))))

    three = ["airplane/a.png", "bus/b.png", "train/c.png", "train/d.png"]
    assert described("a", *three) == "3 classes, 4 images; no held-out split"
    split = ["Train/cat/a.png", "Train/dog/b.png", "Test/cat/c.png", "Test/dog/d.png"]
    assert described("b", *split) == "2 classes, 2 images; 2 classes, 2 images held out"
    assert described("c", "a.png") == "no classes, 1 images; no held-out split"
    assert described("d", "x/cat/a.png", "x/dog/b.png") == (
        "no labels, since all images have one class, 'x', 2 images; no held-out split"
    )
    stray = ["cat/a.png", "dog/b.png", "stray.png"]
    assert described("e", *stray) == (
        "no labels, since 'stray.png' lies beside the class folders, 3 images; no held-out split"
    )
    assert "'1.png' and 2 more lie beside" in described("f", "cat/a.png", "1.png", "2.png", "3.png")


def test_what_is_in_neither_part_is_named(tmp_path, capsys):
    write_images(tmp_path, "train/cat/a.png", "val/cat/b.png", "plots/c.png", "d.png")
    train, _ = named.open_dataset(str(tmp_path))
    assert len(train) == 1
    assert capsys.readouterr().err == (
        f"left out: 'plots', 'd.png' beside the parts of {str(tmp_path)!r}\n"
    )


def test_a_packed_folder_beside_a_packed_part(tmp_path):
    for folder in (tmp_path, tmp_path / "train"):
        folder.mkdir(exist_ok=True)
        (folder / "dataset.json").write_text('{"format": 1, "images": 3}')
    with pytest.raises(ValueError, match="'train' beside images that are packed in the folder"):
        find_layout(tmp_path)
