"""Images that are in two data sets, through folders in each other, links, tables and arrays."""

import numpy as np
import pytest

from pic_tf.data.sources.array import ArraySource
from pic_tf.data.sources.named import open_source
from pic_tf.data.sources.shared import in_both
from tests.data.sources.test_sources import write_images


@pytest.fixture
def root(tmp_path):
    names = ("train/cat/a.png", "train/dog/b.png", "val/cat/a.png", "val/dog/b.png")
    write_images(tmp_path, *names)
    (tmp_path / "link").symlink_to(tmp_path / "val")
    (tmp_path / "some.csv").write_text("path\nval/cat/a.png\ntrain/dog/b.png\n")
    (tmp_path / "others.csv").write_text("path\ntrain/cat/a.png\nval/dog/b.png\n")
    return tmp_path


@pytest.mark.parametrize(
    "first, second, shared",
    [
        ("train", "val", []),  # of equal names
        ("val", "val", ["val/cat/a.png", "val/dog/b.png"]),
        ("", "val", ["val/cat/a.png", "val/dog/b.png"]),
        ("val", "link", ["val/cat/a.png", "val/dog/b.png"]),
        ("train", "some.csv", ["train/dog/b.png"]),
        ("some.csv", "others.csv", []),
        ("some.csv,train/cat", "others.csv", ["train/cat/a.png"]),
    ],
)
def test_files_of_both(root, first, second, shared):
    names = [",".join(str(root / name) for name in part.split(",")) for part in (first, second)]
    found = in_both(*map(open_source, names))
    assert found == [str(root.resolve() / path) for path in shared]


def test_arrays_of_both():
    images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    first, again, other = map(ArraySource, (images, images.copy(), images + 1))
    assert in_both(first, again) == ["array"] and in_both(first, other) == []
