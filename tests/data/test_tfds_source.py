"""Sources by name against what was written into small data sets, and the sentences wrong input gets."""

import io
import re
import resource
import shlex
import shutil
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image

from pic_tf.data.sources import tfds_source
from pic_tf.data.sources.tfds_builder import held_out_split, parse
from pic_tf.data.sources.tfds_source import open_tfds
from tests.data.test_sources import assert_one_sentence

CLASSES = ("ant", "bee", "cat")
PICTURE = tfds.features.Image()
SPLITS = {"train": 29, "test": 10, "validation": 7}


def encoded(seed, kind="PNG"):
    """The bytes of a small image; some end in zeros, which NumPy's own strings would lose."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, [6, 5, 3], np.uint8)).save(buffer, kind)
    return buffer.getvalue() + bytes(seed % 3)


def written(split):
    """What goes into a split: [(bytes, label)], PNG and JPEG in turn, one image in seven without a label."""
    first = sum(map(ord, split))
    return [(encoded(first + i, ("PNG", "JPEG")[i % 2]), -1 if i % 7 == 6 else i % 3) for i in range(SPLITS[split])]


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """Registered, so that its name is known."""

    VERSION = tfds.core.Version("1.2.0")
    code_path = None  # not looked for: tfds 4.9.10 does so with a package that it does not require

    def _info(self):
        features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=CLASSES)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, _):
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split):
        for i, (image, label) in enumerate(written(split)):
            yield i, {"image": io.BytesIO(image), "label": label}


def prepare(builder, **options):
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False, **options))
    return str(builder.data_dir)


def prepare_features(root, features, record):
    """The folder of a data set of one record, which is known by its folder only."""
    body = {
        "VERSION": tfds.core.Version("1.0.0"),
        "code_path": None,
        "_info": lambda self: tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features)),
        "_split_generators": lambda self, _: {"train": self._generate_examples()},
        "_generate_examples": lambda self: [(0, record)],
    }
    with tfds.core.registered.skip_registration():
        builder = type("Other", (tfds.core.GeneratorBasedBuilder,), body)
    return prepare(builder(data_dir=root, file_format="array_record"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A place for data sets with `tiny_pictures` in ArrayRecord files, three a split."""
    root = tmp_path_factory.mktemp("datasets")
    prepare(TinyPictures(data_dir=root, file_format="array_record"), num_shards=3)
    return root


@pytest.fixture
def usual_place(monkeypatch):
    """Sets where data sets are looked for by name, as TFDS_DATA_DIR does before the import."""
    return lambda root: monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(root))


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
    examples = [tf.train.Example.FromString(record) for reader in readers for record in reader.read_all()]
    expected = [example.features.feature["image"].bytes_list.value[0] for example in examples]
    ids = np.random.default_rng(0).integers(0, len(source), [40, 8])
    for read in (source.read, tf.function(source.read)):
        assert read(tf.constant(ids[0])).numpy().tolist() == [expected[i] for i in ids[0]]
        assert read(tf.zeros([0], tf.int64)).shape == [0]
    batches = tf.data.Dataset.from_tensor_slices(ids).map(source.read, num_parallel_calls=4)
    assert batches.element_spec == tf.TensorSpec([8], tf.string)
    assert [batch.tolist() for batch in batches.as_numpy_iterator()] == [[expected[i] for i in row] for row in ids]


def test_ids_that_are_none(root):
    source = open_tfds(str(root / "tiny_pictures/1.2.0"))
    for ids in ([0, len(source)], [-1, 0]):
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=r"expected ids in \[0, 29\), got"):
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
    assert seen == [ids[:4].tolist(), ids[4:8].tolist(), ids[8:].tolist()]  # these records and no others
    assert source.labels[ids].dtype == np.int64
    np.testing.assert_array_equal(source.labels[5:9], expected[5:9])
    assert source.labels[7] == expected[7] and source.labels[np.zeros([0], int)].shape == (0,)
    np.testing.assert_array_equal(source.labels[ids.reshape(3, 3)], expected[ids.reshape(3, 3)])


def test_parts_of_splits(root):
    """A part of a split and a sum of splits hold the records of the whole, from the right places."""
    folder = str(root / "tiny_pictures/1.2.0")
    whole = {split: open_tfds(folder, split) for split in SPLITS}
    images = {s: x.read(tf.range(len(x), dtype=tf.int64)).numpy().tolist() for s, x in whole.items()}
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
            return {"test": self._generate_examples("test"), self.builder_config.name: self._generate_examples("train")}

    usual_place(tmp_path)
    for config in ("one", "two"):
        prepare(TinyConfigured(data_dir=tmp_path, config=config, file_format="array_record"))
        assert len(open_tfds(f"tiny_configured/{config}:1.2.0", config)) == SPLITS["train"]
    assert open_tfds("tiny_configured/two", "two").version == "tiny_configured/two/1.2.0"
    assert held_out_split("tiny_configured/two") == "test"


def test_held_out_split(root, tmp_path):
    assert held_out_split(str(root / "tiny_pictures/1.2.0")) == "validation"
    assert held_out_split(prepare_features(tmp_path, {"image": PICTURE}, {"image": io.BytesIO(encoded(0))})) is None


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


def test_fingerprint_is_of_the_records_not_of_the_place(root, tmp_path):
    folder, moved = str(root / "tiny_pictures/1.2.0"), tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    prints = [open_tfds(folder, split).fingerprint() for split in ("train", "test", "train[1:]", "train+test")]
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
    assert np.asarray(source.labels).tolist() == [{0: 3, 1: 2, 2: 0, -1: -1}[label] for label in own]
    assert set(own) == {-1, 0, 1, 2}


def test_unknown_class_in_the_held_out_set(root):
    message = r"expected the classes in '.*' to be among the training set's 2, got 'bee' besides: name the classes"
    with pytest.raises(ValueError, match=message) as error:
        open_tfds(str(root / "tiny_pictures/1.2.0"), "test", class_names=("ant", "cat"))
    assert_one_sentence(error)


def test_several_features_of_a_kind(tmp_path):
    """One is called as expected; or else none of several labels is taken."""
    label = tfds.features.ClassLabel(names=CLASSES)
    features = {"image": PICTURE, "mask": PICTURE, "label": label, "quality": tfds.features.ClassLabel(num_classes=2)}
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
    source = open_tfds(prepare_features(tmp_path, features, {"view": io.BytesIO(encoded(5)), "kind": 2}))
    assert np.asarray(source.labels).tolist() == [2] and source.class_names == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("features", "record", "got"),
    [
        (
            {"left": PICTURE, "right": PICTURE},
            {"left": np.zeros([2, 2, 3], np.uint8), "right": np.zeros([2, 2, 3], np.uint8)},
            r"expected one Image in the records of '.*', .* got 'left' \(Image\), 'right' \(Image\): choose",
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
            r"expected JPEG or PNG images in 'depth' of '.*', got pixels of float32: choose",
        ),
        (
            {"image": PICTURE},
            {"image": io.BytesIO(b"this is text")},
            r"expected JPEG or PNG images in 'image' of '.*', got one that starts with b'this is ' in '.*\[0\]': ",
        ),
        (
            {"image": PICTURE},
            {"image": io.BytesIO(encoded(0, "GIF"))},
            r"expected JPEG or PNG images in 'image' of '.*', got a GIF in '.*\[0\]': pack it with "
            r"`python tools/pack.py --source=tfds:/.*:train --output=PACKED`$",
        ),
    ],
)
def test_no_images(tmp_path, features, record, got):
    folder = prepare_features(tmp_path, features, record)
    with pytest.raises(ValueError, match=got) as error:
        open_tfds(folder)
    assert_one_sentence(error)


@pytest.mark.parametrize("split", ["trian", "", "train[:99]", "train[", "train[:90%]+tset"])
def test_unknown_split(root, split):
    message = r"expected a split of '.*', got '.*': name one of .*train \(29 records\).*test \(10 records\), "
    with pytest.raises(ValueError, match=message) as error:
        open_tfds(str(root / "tiny_pictures/1.2.0"), split)
    assert_one_sentence(error)


def test_empty_part_of_a_split(root):
    with pytest.raises(ValueError, match=r"expected images in 'train\[:0\]' of '.*', got none: ") as error:
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
    message = f"expected a data set that TensorFlow Datasets knows, .* prepared in .*, got {name!r}: {advice}"
    with pytest.raises(ValueError, match=message) as error:
        open_tfds(name)
    assert_one_sentence(error)


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "1.0.0").mkdir()
    for folder in (tmp_path / "1.0.0", tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=r"expected .* or a folder with a dataset_info.json, .*, got '/") as error:
            open_tfds(str(folder))
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
    with pytest.raises(ValueError, match=rf"expected 10 records in '.*-00002-of-00003', got {got}: ") as error:
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


def test_in_two_places(root, tmp_path, usual_place, monkeypatch):
    shutil.copytree(root, tmp_path / "other")
    usual_place(root)
    monkeypatch.setattr(tfds.core.utils.file_utils, "_REGISTERED_DATA_DIRS", {tfds.core.Path(tmp_path / "other")})
    with pytest.raises(ValueError, match=r"expected 'tiny_pictures' in one place, got it in several of .*, ") as error:
        open_tfds("tiny_pictures")
    assert_one_sentence(error)


def commands(error):
    return [shlex.split(command) for command in re.findall("`(.+?)`", str(error.value))]


def test_not_prepared_and_the_command_that_prepares_it(tmp_path, usual_place):
    usual_place(tmp_path)
    with pytest.raises(ValueError, match=r"expected 'tiny_pictures' prepared in .*, got nothing there: ") as error:
        open_tfds("tiny_pictures")
    assert_one_sentence(error)
    pip, (python, option, code) = commands(error)
    assert pip == ["pip", "install", "importlib_resources"] and (python, option) == ("python", "-c")
    exec(code, {})  # in this process, where the name is known
    assert len(open_tfds("tiny_pictures")) == SPLITS["train"]


def test_other_files_and_the_command_that_converts_them(root, tmp_path, monkeypatch):
    """Both formats hold the same records in the same sequence."""
    folder = prepare(TinyPictures(data_dir=tmp_path, file_format="tfrecord"), num_shards=3)
    with pytest.raises(ValueError, match=r"expected '.*' in ArrayRecord files, got tfrecord in '.*': ") as error:
        open_tfds(folder)
    assert_one_sentence(error)
    pip, convert = commands(error)
    assert pip == ["pip", "install", "apache-beam", "mlcroissant"] and convert[:2] == ["tfds", "convert_format"]
    # Beam is imported by the command, but not used: a stand-in for its one class saves its installation.
    monkeypatch.setitem(sys.modules, "apache_beam", types.SimpleNamespace(DoFn=object))
    simple_parsing = pytest.importorskip("simple_parsing")
    from tensorflow_datasets.scripts.cli import convert_format

    simple_parsing.parse(convert_format.Args, args=convert[2:]).execute()
    converted, direct = open_tfds(folder), open_tfds(str(root / "tiny_pictures/1.2.0"))
    ids = tf.range(len(direct))
    assert converted.read(ids).numpy().tolist() == direct.read(ids).numpy().tolist()
    assert np.asarray(converted.labels).tolist() == np.asarray(direct.labels).tolist()
    assert converted.fingerprint() == direct.fingerprint()


def test_quiet(root, capfd, caplog, monkeypatch):
    monkeypatch.setattr(logging, "_log_counter_per_token", {})  # what absl says only once a process, it says again
    source = open_tfds(str(root / "tiny_pictures/1.2.0"))
    source.read(tf.range(len(source)))
    np.asarray(source.labels)
    assert capfd.readouterr() == ("", "") and not caplog.records
