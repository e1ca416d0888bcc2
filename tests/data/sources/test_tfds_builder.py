"""Data sets found by name or folder, and the sentences for those that are not there."""

import io
import re
import shlex
import shutil
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from pic_tf.data.sources.tfds_builder import held_out_split, parse
from pic_tf.data.sources.tfds_source import open_tfds
from tests.data.sources.test_sources import assert_one_sentence
from tests.data.sources.tfds_sets import (
    PICTURE,
    SPLITS,
    TinyPictures,
    encoded,
    prepare,
    prepare_features,
)


@pytest.mark.parametrize("name", ["tiny_pictures", "tiny_pictures:1.2.0", "tiny_pictures:1.*.*"])
def test_by_name(root, usual_place, name):
    usual_place(root)
    source = open_tfds(name)
    assert len(source) == SPLITS["train"] and source.name == f"tfds:{name}:train"
    assert source.fingerprint() == open_tfds(str(root / "tiny_pictures/1.2.0")).fingerprint()


def test_by_name_in_another_version_than_the_code(root, usual_place, tmp_path):
    """The package was updated after the data set was prepared."""
    shutil.copytree(root / "tiny_pictures/1.2.0", tmp_path / "tiny_pictures/1.0.1")
    info = tmp_path / "tiny_pictures/1.0.1/dataset_info.json"
    info.write_text(info.read_text().replace("1.2.0", "1.0.1"))
    usual_place(tmp_path)
    assert open_tfds("tiny_pictures").version == "tiny_pictures/1.0.1"


def test_configurations(tmp_path, usual_place):
    class TinyConfigured(TinyPictures):
        BUILDER_CONFIGS = tuple(tfds.core.BuilderConfig(name=name) for name in ("one", "two"))

        def _split_generators(self, _):
            return {
                "test": self._generate_examples("test"),
                self.builder_config.name: self._generate_examples("train"),
            }

    usual_place(tmp_path)
    for config in ("one", "two"):
        prepare(TinyConfigured(data_dir=tmp_path, config=config, file_format="array_record"))
        assert len(open_tfds(f"tiny_configured/{config}:1.2.0", config)) == SPLITS["train"]
    assert open_tfds("tiny_configured/two", "two").version == "tiny_configured/two/1.2.0"
    assert held_out_split("tiny_configured/two") == "test"


def test_held_out_split(root, tmp_path):
    assert held_out_split(str(root / "tiny_pictures/1.2.0")) == "validation"
    assert (
        held_out_split(
            prepare_features(tmp_path, {"image": PICTURE}, {"image": io.BytesIO(encoded(0))})
        )
        is None
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cifar10", ("cifar10", None)),
        ("cifar10:train", ("cifar10", "train")),
        ("cifar10:3.0.2", ("cifar10:3.0.2", None)),
        ("cifar10:3.0.2:train", ("cifar10:3.0.2", "train")),
        ("cifar10:3.*.*:train[10:20]", ("cifar10:3.*.*", "train[10:20]")),
        ("cifar10:train[:90%]+test[5:]", ("cifar10", "train[:90%]+test[5:]")),
        ("imagenet2012_subset/10pct:5.1.0:train", ("imagenet2012_subset/10pct:5.1.0", "train")),
        ("/data/cifar10/3.0.2", ("/data/cifar10/3.0.2", None)),
        ("/data/cifar10/3.0.2:test", ("/data/cifar10/3.0.2", "test")),
        ("cifar10:", ("cifar10", "")),
        ("", ("", None)),
    ],
)
def test_parse(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize("split", ["trian", "", "train[:99]", "train[", "train[:90%]+tset"])
def test_unknown_split(root, split):
    message = (
        r"expected a split of '.*', got '.*': name one of .*train \(29 records\).*test \(10 "
        r"records\), "
    )
    with pytest.raises(ValueError, match=message) as error:
        open_tfds(str(root / "tiny_pictures/1.2.0"), split)
    assert_one_sentence(error)


def test_empty_part_of_a_split(root):
    with pytest.raises(
        ValueError, match=r"expected images in 'train\[:0\]' of '.*', got none: "
    ) as error:
        open_tfds(str(root / "tiny_pictures/1.2.0"), "train[:0]")
    assert_one_sentence(error)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("tiny_picture", r"see .*tiny_pictures.*$"),
        ("qqqq", r"see https://www\.tensorflow\.org/datasets/catalog$"),
        ("", "see https"),
        ("a name", "see https"),
        ("somebody:qqqq", "see https"),
    ],
)
def test_unknown_name(tmp_path, usual_place, name, advice):
    usual_place(tmp_path)
    message = (
        f"expected a data set that TensorFlow Datasets knows, .* prepared in .*, got {name!r}: "
        f"{advice}"
    )
    with pytest.raises(ValueError, match=message) as error:
        open_tfds(name)
    assert_one_sentence(error)


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "1.0.0").mkdir()
    for folder in (tmp_path / "1.0.0", tmp_path / "nowhere"):
        with pytest.raises(
            ValueError, match=r"expected .* or a folder with a dataset_info.json, .*, got '/"
        ) as error:
            open_tfds(str(folder))
        assert_one_sentence(error)


def test_in_two_places(root, tmp_path, usual_place, monkeypatch):
    shutil.copytree(root, tmp_path / "other")
    usual_place(root)
    monkeypatch.setattr(
        tfds.core.utils.file_utils, "_REGISTERED_DATA_DIRS", {tfds.core.Path(tmp_path / "other")}
    )
    with pytest.raises(
        ValueError, match=r"expected 'tiny_pictures' in one place, got it in several of .*, "
    ) as error:
        open_tfds("tiny_pictures")
    assert_one_sentence(error)


def commands(error):
    return [shlex.split(command) for command in re.findall("`(.+?)`", str(error.value))]


def test_not_prepared_and_the_command_that_prepares_it(tmp_path, usual_place):
    usual_place(tmp_path)
    with pytest.raises(
        ValueError, match=r"expected 'tiny_pictures' prepared in .*, got nothing there: "
    ) as error:
        open_tfds("tiny_pictures")
    assert_one_sentence(error)
    pip, (python, option, code) = commands(error)
    assert pip == ["pip", "install", "importlib_resources"] and (python, option) == ("python", "-c")
    exec(code, {})  # in this process, where the name is known
    assert len(open_tfds("tiny_pictures")) == SPLITS["train"]


def test_other_files_and_the_command_that_converts_them(root, tmp_path, monkeypatch):
    """Both formats hold the same records in the same sequence."""
    folder = prepare(TinyPictures(data_dir=tmp_path, file_format="tfrecord"), num_shards=3)
    with pytest.raises(
        ValueError, match=r"expected '.*' in ArrayRecord files, got tfrecord in '.*': "
    ) as error:
        open_tfds(folder)
    assert_one_sentence(error)
    pip, convert = commands(error)
    assert pip == ["pip", "install", "apache-beam", "mlcroissant"] and convert[:2] == [
        "tfds",
        "convert_format",
    ]
    # Beam is imported by the command, but not used: a stand-in for its one class saves its
    # installation.
    monkeypatch.setitem(sys.modules, "apache_beam", types.SimpleNamespace(DoFn=object))
    simple_parsing = pytest.importorskip("simple_parsing")
    from tensorflow_datasets.scripts.cli import convert_format

    simple_parsing.parse(convert_format.Args, args=convert[2:]).execute()
    converted, direct = open_tfds(folder), open_tfds(str(root / "tiny_pictures/1.2.0"))
    ids = tf.range(len(direct))
    assert converted.read(ids).numpy().tolist() == direct.read(ids).numpy().tolist()
    assert np.asarray(converted.labels).tolist() == np.asarray(direct.labels).tolist()
    assert converted.fingerprint() == direct.fingerprint()
