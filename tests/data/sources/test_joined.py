"""Several folders, packed data sets and tables as one data set, against their files."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from pic_tf.data.sources import packed_format
from pic_tf.data.sources.named import describe, is_there, open_dataset, open_source, short_name
from pic_tf.evals.features import state_of_files
from pic_tf.evals.predictions import PredictionSettings, predict
from pic_tf.look.settings import (
    FeatureMapSettings,
    RetrievalSettings,
    SaliencySettings,
    check_feature_map,
    check_retrieval,
    check_saliency,
)
from pic_tf.runs import open_data
from pic_tf.settings.config import Config


def pictures(folder, *names):
    """A 2 x 2 PNG of a level of its own under each name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        level = sum(map(ord, str(path))) % 256
        Image.fromarray(np.full([2, 2, 3], level, np.uint8)).save(path)
    return str(folder)


def packed(folder, source, label):
    """A packed data set of the PNGs directly in a folder, all of one class."""
    folder.mkdir()
    writer = ArrayRecordWriter(
        str(folder / "images-00000.arrayrecord"), packed_format.WRITER_OPTIONS
    )
    rows = []
    for path in sorted(source.iterdir()):
        writer.write(content := path.read_bytes())
        rows.append(packed_format.Row(path.name, label, 2, 2, len(content), "0" * 64))
    writer.close()
    shard = packed_format.write_manifest(folder, "images-00000.arrayrecord", 0, rows)
    packed_format.write_description(folder, packed_format.Description((label,), 256, 90, (shard,)))
    return str(folder)


@pytest.fixture
def places(tmp_path):
    a = pictures(tmp_path / "a", "dog/0.png", "cat/0.png")
    b = pictures(tmp_path / "b", "cat/0.png", "cat/1.png")  # one class alone
    pictures(tmp_path / "owls", "0.png")
    return a, b, packed(tmp_path / "p", tmp_path / "owls", "owl")


def test_ids_names_and_labels_go_through_the_places(places, tmp_path):
    """Equal names in two folders are two images, equal classes are one."""
    a, b, p = places
    source = open_source(f"{a}, {b},{p}")
    files = [tmp_path / x for x in ("a/cat/0.png", "a/dog/0.png", "b/cat/0.png", "b/cat/1.png")]
    assert [source.path(i) for i in range(4)] == list(map(str, files)) and len(source) == 5
    assert source.path(4).startswith("0.png (record 0 of ") and source.folder == ""
    assert source.class_names == ("cat", "dog", "owl") and source.labels.tolist() == [0, 1, 0, 0, 2]
    assert open_source(f"{b},{p}").class_names == ("cat", "owl")

    content = [path.read_bytes() for path in [*files, tmp_path / "owls/0.png"]]
    read = tf.function(source.read, [tf.TensorSpec([4], tf.int64)], autograph=False)
    for ids in ([4, 0, 3, 1], [2, 2, 0, 2]):  # the second one reads nothing of the last place
        found = read(tf.constant(ids, tf.int64))
        assert found.shape == [4] and list(found.numpy()) == [content[i] for i in ids]


def test_fingerprints(places, tmp_path):
    """They change with an id's image, and not with the place of a folder."""
    a, b, p = places
    before = open_source(f"{a},{p}")
    sums = {open_source(x).fingerprint() for x in (f"{a},{p}", f"{p},{a}", a, f"{a},{b}")}
    assert len(sums) == 4
    state = state_of_files(before)
    (tmp_path / "a").rename(tmp_path / "moved")
    assert open_source(f"{tmp_path / 'moved'},{p}").fingerprint() == before.fingerprint()
    pictures(tmp_path / "moved", "dog/0.png")
    assert state_of_files(open_source(f"{tmp_path / 'moved'},{p}")) != state


def test_parts_of_each_folder_are_joined(tmp_path):
    a = pictures(tmp_path / "a", "train/x/0.png", "train/y/0.png", "val/y/1.png")
    b = pictures(tmp_path / "b", "x/2.png", "z/2.png")
    train, held_out = open_dataset(f"{a},{b}")
    assert len(train) == 4 and train.class_names == ("x", "y", "z")
    assert held_out.labels.tolist() == [1] and held_out.class_names == train.class_names
    assert describe(train, held_out) == "3 classes, 4 images; 3 classes, 1 images held out"
    c = pictures(tmp_path / "c", "z/3.png")
    _, held_out = open_dataset(f"{a},{b}", f"{c},{a}/val")
    assert held_out.labels.tolist() == [2, 1] and held_out.class_names == train.class_names
    with pytest.raises(ValueError, match=r"^expected the classes in '.*c' .* got 'z' besides"):
        open_dataset(f"{a}", f"{a}/val,{c}")


@pytest.mark.parametrize(
    "others, reason",
    [
        (["0.png"], "no labels, since {b!r} has none"),
        (["cat/0.png", "1.png"], "no labels, since '1.png' lies beside the class folders"),
    ],
)
def test_the_reason_why_there_are_no_labels(tmp_path, others, reason):
    a, b = pictures(tmp_path / "a", "x/0.png", "y/0.png"), pictures(tmp_path / "b", *others)
    source = open_source(f"{a},{b}")
    assert source.labels is None and source.unlabelled == reason.format(b=b)
    alone = pictures(tmp_path / "c", "x/0.png"), pictures(tmp_path / "d", "x/0.png")
    assert (
        open_source(",".join(alone)).unlabelled == "no labels, since all images have one class, 'x'"
    )


def test_names_of_lists(places, tmp_path, monkeypatch):
    a, b, _ = places
    assert short_name(f"{a},{b}") == "a,b" and short_name("tfds:x") == "tfds:x"
    assert is_there(f"{a},missing") and is_there("digits") and not is_there("c,d")
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "a,b", "0.png")
    assert len(open_source("a,b")) == 1, "a folder with a comma in its name stands alone"


@pytest.mark.parametrize(
    "names, message",
    [
        ("A,", "expected names between the commas, got '.*,': leave out the comma"),
        ("A,B,A/", "expected places that are apart from each other, got '.*a' twice: name it once"),
        (
            "A/cat,A",
            "expected places that are apart .* got '.*a/cat' inside of '.*a': name it once",
        ),
        (
            "A,digits",
            "expected folders, packed data sets or tables in a list .* got 'digits': pack",
        ),
        ("A,tfds:x", "expected folders, packed data sets or tables .* got 'tfds:x': pack it"),
        ("A,none", "expected a folder of images at 'none', got nothing there: check the path"),
    ],
)
def test_wrong_lists(places, names, message):
    a, b, _ = places
    with pytest.raises(ValueError, match=message):
        open_dataset(names.replace("A", a).replace("B", b))


def test_an_image_in_two_places_is_refused(places, tmp_path):
    """Of a table and a folder, of two tables; the image would be two instances."""
    a, b, p = places
    for name, row in (
        ("one", "a/cat/0.png"),
        ("two", "b/cat/1.png"),
        ("more", "a/cat/../cat/0.png"),
    ):
        (tmp_path / f"{name}.csv").write_text(f"path\n{row}\n")
    one, two, more = (str(tmp_path / f"{name}.csv") for name in ("one", "two", "more"))
    assert len(open_source(f"{one},{two},{p}")) == 3
    for names in (f"{one},{more}", f"{one},{a}", f"{p},{b},{two}"):
        with pytest.raises(ValueError, match=r"^expected each image once in .*png' in two places"):
            open_source(names)


def test_a_list_of_images_is_not_written_over(places, tmp_path):
    table = tmp_path / "a.csv"
    table.write_text("path\na/cat/0.png\n")
    sentence = r"^expected another file to write than the one of the images, got '.*a.csv': name"
    for wrong in (
        lambda: check_feature_map(
            FeatureMapSettings(dataset=str(table), output=f"{places[0]}.png")
        ),
        lambda: check_retrieval(
            RetrievalSettings(eval_dataset=f"{places[1]},{table}", output=places[0])
        ),
        lambda: check_saliency(SaliencySettings(dataset=str(table), output=places[0])),
        lambda: predict(PredictionSettings("none", str(table), str(table))),
    ):
        with pytest.raises(ValueError, match=sentence):
            wrong()
    check_retrieval(RetrievalSettings(dataset=str(table), output=places[1]))


def test_output_folder_inside_of_a_place_is_refused(places):
    a, b, _ = places
    config = Config(dataset=f"{a},{b}", output_dir=f"{b}/run")
    with pytest.raises(
        ValueError, match=r"expected --output_dir outside the folder of images '.*b'"
    ):
        open_data.open_images(config)
    assert len(open_data.open_images(dataclasses.replace(config, output_dir="run")).train) == 4
