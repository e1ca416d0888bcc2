"""Images that a CSV or Parquet file lists: paths, labels, and wrong tables."""

import os
import pathlib

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from PIL import Image
from pyarrow import parquet

from pic_tf.data.sources.listed import open_list
from pic_tf.data.sources.named import open_dataset, open_source


@pytest.fixture
def folder(tmp_path):
    for i in range(4):
        path = tmp_path / "images" / f"{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full([2, 2, 3], i, np.uint8)).save(path)
    return tmp_path


def write(path: pathlib.Path, columns: dict[str, list]) -> str:
    """A table of columns, in the form of its ending."""
    if path.suffix == ".parquet":
        parquet.write_table(pa.table(columns), path)
    else:
        rows = [columns.keys(), *zip(*columns.values())]
        path.write_text(
            "".join(",".join("" if x is None else x for x in row) + "\n" for row in rows)
        )
    return str(path)


PATHS = ["images/1/3.png", "images/0/0.png", "images/1/1.png"]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("path, label", [("path", "label"), ("name", "class")])
def test_rows_are_images_and_labels(folder, ending, path, label):
    """In the order of the rows, by id; other columns are passed over."""
    columns = {"id": ["9", "8", "7"], path: PATHS, label: ["odd", "even", "odd"]}
    source = open_source(write(folder / f"list{ending}", columns))
    assert [source.path(i) for i in range(3)] == [str(folder / x) for x in PATHS]
    assert source.labels.tolist() == [1, 0, 1] and source.class_names == ("even", "odd")
    encoded = source.read(tf.constant([2, 0], tf.int64)).numpy()
    assert list(encoded) == [(folder / PATHS[i]).read_bytes() for i in (2, 0)]
    train, held_out = open_dataset(source.name, source.name)
    assert train.fingerprint() == source.fingerprint() and held_out.class_names == ("even", "odd")
    other = write(folder / f"other{ending}", {path: PATHS[::-1]})
    assert open_source(other).labels is None and not open_source(other).unlabelled
    assert open_source(other).fingerprint() != source.fingerprint()


def test_paths_from_the_current_folder_on_and_absolute_ones(folder, monkeypatch):
    (folder / "lists").mkdir()
    monkeypatch.chdir(folder)
    mixed = [PATHS[0], str(folder / PATHS[1])]
    source = open_list(write(folder / "lists" / "list.csv", {"path": mixed}))
    assert [source.path(i) for i in range(2)] == [str(folder / x) for x in PATHS[:2]]


def test_a_row_without_a_label(folder):
    source = open_list(write(folder / "list.csv", {"path": PATHS, "label": ["a", None, "b"]}))
    assert source.labels is None
    assert source.unlabelled.startswith("no labels, since 'images/0/0.png' has none in")


@pytest.mark.parametrize(
    "columns, sentence",
    [
        (
            {"file": PATHS},
            r"expected a table with a column path or name in .*, got columns file: w",
        ),
        ({"path": []}, r"expected images in .*, got no row: write one row an image"),
        (
            {"path": [PATHS[0]] * 2},
            r"expected each image once in .*, got '.*/images/1/3.png' 2 times: l",
        ),
        (
            {"path": [PATHS[0], f"./{PATHS[0]}"]},
            r"expected each image once in .*, got '.*/images/1/3.png' 2 times: l",
        ),
        (
            {"path": PATHS, " Label": ["a", "b", "a"]},
            r"expected a table .* got a column ' Label', which is to be called label or class: w",
        ),
        (
            {"path": ["images/5.png", PATHS[0]]},
            r"expected a readable image at '/.*test_wrong_tables.*/images/5.png', got No such file",
        ),
        ({"path": ["list.csv"]}, r"expected a JPEG.* image in .*list.csv', got a file that starts"),
        (
            {"path": [None, PATHS[0]], "label": ["a", "b"]},
            r"expected a table .* got a row without a p",
        ),
        (
            {"path": PATHS, "label": ["a", "b", "new"]},
            r"expected the classes in .*, got 'new' besides",
        ),
    ],
)
def test_wrong_tables_get_one_sentence(folder, columns, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}[^\n]*$"):
        open_list(write(folder / "list.csv", columns), ("a", "b"))


def test_what_is_no_table_gets_one_sentence(folder):
    for name, content in (("list.parquet", b"no table"), ("list.csv", b"")):
        (folder / name).write_bytes(content)
        with pytest.raises(
            ValueError, match=r"^expected a table with a column path or name[^\n]*$"
        ):
            open_list(str(folder / name))
    with pytest.raises(
        ValueError, match=r"^expected a folder of images at .*none.csv', got nothing"
    ):
        open_source(os.path.join(folder, "none.csv"))
