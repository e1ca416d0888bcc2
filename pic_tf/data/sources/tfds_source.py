"""Data sets by name: one split of what TensorFlow Datasets has prepared on this machine, read at random.

Only ArrayRecord files can be read at random. Nothing is downloaded here: where something is missing, the error says
which command makes it. TensorFlow Datasets is imported when a data set is opened, not before.
"""

import dataclasses
import difflib
import hashlib
import os
import pathlib
import re
import resource
from typing import Any

import numpy as np
import tensorflow as tf

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8")  # what we decode, as in sources.py
_READ_AT_ONCE = 512  # records, images and all, that are in memory while labels are read
_OTHER_FILES = 200  # that a process may want to have open beside a data set's
_VERSION = r":(?:\d+|\*)(?:\.(?:\d+|\*)){2}"


class Records:
    """Serialized tf.train.Examples in ArrayRecord files. Any number of threads may read at once.

    With 1,024 files this is 4 times as fast as TensorFlow Datasets' own source, which starts threads for each batch.
    """

    def __init__(self, files: list[tuple[str, int, int]]) -> None:
        """Open `files`: (path, first record, number of records) of each."""
        self.files = files
        _allow_open_files(len(files))
        self._readers = [_open(*file) for file in files]
        _, first, count = zip(*files)
        self._ends = np.cumsum(count)
        self._shift = np.array(first) + count - self._ends  # from ids to positions in the file

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, ids: tf.Tensor, feature: str, dtype: tf.DType) -> tf.Tensor:
        """One feature, `dtype` [b], of integer [b] ids."""
        records = tf.ensure_shape(tf.numpy_function(self._read, [ids], tf.string, stateful=False), ids.shape)
        return tf.io.parse_example(records, {feature: tf.io.FixedLenFeature([], dtype)})[feature]

    def path(self, record_id: int) -> str:
        """The file of a record and its number there."""
        file = np.searchsorted(self._ends, record_id, side="right")
        return f"{self.files[file][0]}[{record_id + self._shift[file]}]"

    def _read(self, ids: np.ndarray) -> np.ndarray:
        if ids.size and not 0 <= ids.min() <= ids.max() < len(self):
            raise ValueError(f"expected ids in [0, {len(self)}), got {ids.min()} to {ids.max()}")
        records = np.full(len(ids), b"", object)  # objects: NumPy's own strings would lose zeros at the end
        file_of = np.searchsorted(self._ends, ids, side="right")
        for file in np.unique(file_of):
            places = np.flatnonzero(file_of == file)
            records[places] = self._readers[file].read((ids[places] + self._shift[file]).tolist())
        return records


@dataclasses.dataclass(frozen=True, eq=False)
class RecordLabels:
    """Labels that are read when they are asked for; to get one, its record has to be read, image and all.

    Index it as an array: `labels[ids]` is int64 [n] for integer ids [n]. `np.asarray(labels)` reads the whole split.

    Attributes:
      records: by id.
      feature: what the label is called in them.
      numbers: int64 [classes + 1], what each stored label becomes; the last is for -1, which stands for none.
    """

    records: Records
    feature: str
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, ids) -> np.ndarray:
        ids = np.arange(len(self))[ids]
        parts = np.split(ids.ravel(), range(_READ_AT_ONCE, ids.size, _READ_AT_ONCE))
        stored = np.concatenate([self.records.read(part, self.feature, tf.int64) for part in parts])
        return self.numbers[stored].reshape(ids.shape)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[:], dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsSource:
    """One split of a prepared data set; ids follow the order of its files.

    Attributes:
      name, labels, class_names, folder: as of `Source`; labels are read on demand.
      records: by id.
      feature: what the image is called in them.
      version: name, configuration and version of the data set.
    """

    name: str
    labels: RecordLabels | None
    class_names: tuple[str, ...]
    folder: str
    records: Records
    feature: str
    version: str

    def __len__(self) -> int:
        return len(self.records)

    def path(self, instance_id: int) -> str:
        """The file of an instance and the number of its record there."""
        return self.records.path(instance_id)

    def fingerprint(self) -> str:
        """Hash of the data set's version and of the split's files, their names and lengths; the folder may move."""
        files = [(os.path.basename(path), os.path.getsize(path), first, n) for path, first, n in self.records.files]
        return hashlib.sha256(repr((self.version, files)).encode()).hexdigest()

    def read(self, instance_ids: tf.Tensor) -> tf.Tensor:
        """string [b], the encoded images, of int64 [b] ids."""
        return self.records.read(instance_ids, self.feature, tf.string)


def parse(text: str) -> tuple[str, str | None]:
    """(name, split or None) of NAME or NAME:SPLIT, such as "cifar10:3.0.2:train[:90%]" with the version in the name."""
    return re.fullmatch(rf"([^:]*(?:{_VERSION})?)(?::(.*))?", text, re.DOTALL).groups()


def open_tfds(name: str, split: str | None = None, class_names: tuple[str, ...] = ()) -> TfdsSource:
    """Open one split of a prepared data set and check that it holds images.

    Args:
      name: what TensorFlow Datasets calls it ("cifar10", "imagenet2012:5.1.0", "ds/config"), prepared in the usual
        place or in TFDS_DATA_DIR, or the folder that holds its files ("/data/cifar10/3.0.2").
      split: such as "train", "train[:90%]" or "train+test"; None for "train".
      class_names: classes that its classes must be among, to number the labels by; () for its own.

    Returns:
      The source.

    Raises:
      ValueError: an unknown data set or split, one that is not prepared or not in ArrayRecord files, one without
        images or with several, an image that is not encoded, or a class that is not among `class_names`.

    Source: https://www.tensorflow.org/datasets/splits.
    """
    import tensorflow_datasets as tfds

    split = "train" if split is None else split
    builder = _builder(name)
    folder, info = str(builder.data_dir), builder.info
    formats = {file_format.value for file_format in info.available_file_formats()}
    if "array_record" not in formats:  # tfds 4.9.10 imports what pip brings here and below, but does not require it
        raise ValueError(
            f"expected {name!r} in ArrayRecord files, got {', '.join(sorted(formats))} in {folder!r}: convert it with "
            f"`pip install apache-beam mlcroissant` and `tfds convert_format --dataset_version_dir={folder} "
            "--out_file_format=array_record`"
        )
    info.set_file_format("array_record", override=True, override_if_initialized=True)
    features = dict(info.features.items())
    image = _image(features, name)
    label = _only({key: x for key, x in features.items() if isinstance(x, tfds.features.ClassLabel)}, "label")
    own_names = tuple(features[label].names) if label else ()
    numbers = _numbers(own_names, class_names, name)
    records = Records(_files(info.splits, name, split))
    labels = RecordLabels(records, label, numbers) if label else None
    names = (class_names or own_names) if label else ()
    source = TfdsSource(f"tfds:{name}:{split}", labels, names, folder, records, image, info.full_name)
    head = source.read(tf.constant([0], tf.int64))[0].numpy()[:8]
    if not head.startswith(_MAGIC):
        raise ValueError(
            f"expected JPEG or PNG images in {image!r} of {name!r}, got one that starts with {head!r} in "
            f"{source.path(0)!r}: choose another data set"
        )
    return source


def held_out_split(name: str) -> str | None:
    """The split to evaluate on: "validation" or else "test", or None where there is neither.

    Args:
      name: as of `open_tfds`, whose errors about it are raised here as well.
    """
    splits = _builder(name).info.splits
    return next((split for split in ("validation", "test") if split in splits), None)


def _builder(name: str) -> Any:
    """The tfds.core.DatasetBuilder of a data set that is prepared here; nothing is looked for in the network."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import naming, read_only_builder
    from tensorflow_datasets.core.utils import file_utils

    folder = pathlib.Path(name).expanduser()
    if (folder / "dataset_info.json").is_file():
        return tfds.builder_from_directory(folder)
    places = ", ".join(str(place) for place in file_utils.list_data_dirs())
    if naming.is_valid_dataset_name(name):
        try:
            return read_only_builder.builder_from_files(name)  # of whatever version; tfds.builder insists on its own
        except tfds.core.DatasetNotFoundError:
            pass
        except ValueError as error:
            raise ValueError(
                f"expected {name!r} in one place, got it in several of {places}: name one of the folders instead"
            ) from error
    known = tfds.list_builders(with_community_datasets=False)
    plain = re.split("[/:]", name)[0]
    if plain in known:
        raise ValueError(
            f"expected {name!r} prepared in {places}, got nothing there: set TFDS_DATA_DIR to where it is, or "
            'prepare it with `pip install importlib_resources` and `python -c "import tensorflow_datasets as tfds; '
            f"tfds.builder({name!r}, file_format='array_record').download_and_prepare()\"`"
        )
    close = difflib.get_close_matches(plain, known) or ["https://www.tensorflow.org/datasets/catalog"]
    raise ValueError(
        f"expected a data set that TensorFlow Datasets knows, one prepared in {places}, or a folder with a "
        f"dataset_info.json, such as /data/cifar10/3.0.2, got {name!r}: see {', '.join(close)}"
    )


def _files(splits: Any, name: str, split: str) -> list[tuple[str, int, int]]:
    """`Records.files` of a split."""
    try:
        files = [(str(x.filename), x.skip, x.take) for x in splits[split].file_instructions]
    except (ValueError, KeyError, AssertionError) as error:
        known = ", ".join(f"{key} ({value.num_examples:,} records)" for key, value in splits.items())
        raise ValueError(
            f"expected a split of {name!r}, got {split!r}: name one of {known}, or a part such as 'train[:90%]'"
        ) from error
    if not files:
        raise ValueError(f"expected images in {split!r} of {name!r}, got none: name a larger part")
    return files


def _open(path: str, first: int, count: int) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader

    # Single records from all over the file, in the thread that asks: what lies behind them is of no use.
    reader = ArrayRecordReader(path, options="readahead_buffer_size:0,max_parallelism:0")
    if reader.num_records() < first + count:  # 0 where there is no file, or a broken one
        raise ValueError(
            f"expected {first + count} records in {path!r}, got {reader.num_records()}: prepare the data set again"
        )
    return reader


def _allow_open_files(count: int) -> None:
    """Allow so many more; ImageNet has as many files as a process may usually open, 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + _OTHER_FILES:
        raise ValueError(
            f"expected to be allowed {count + _OTHER_FILES} open files for a split in {count}, got a limit of {hard}: "
            f"raise it with `ulimit -n {count + _OTHER_FILES}`"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft + count, hard), hard))


def _only(found: dict[str, Any], preferred: str) -> str | None:
    """The one key, or the preferred one of several."""
    return next(iter(found)) if len(found) == 1 else preferred if preferred in found else None


def _image(features: dict[str, Any], name: str) -> str:
    import tensorflow_datasets as tfds

    images = {key: x for key, x in features.items() if isinstance(x, tfds.features.Image)}
    image = _only(images, "image")
    if image is None:
        got = ", ".join(f"{key!r} ({type(x).__name__})" for key, x in sorted((images or features).items()))
        raise ValueError(
            f"expected one Image in the records of {name!r}, or one that is called 'image', got {got}: choose another "
            "data set, or another configuration of it"
        )
    dtype = np.dtype(features[image].np_dtype)
    if not np.issubdtype(dtype, np.integer):  # the bytes of floats are hidden in the colours of a PNG
        raise ValueError(
            f"expected JPEG or PNG images in {image!r} of {name!r}, got pixels of {dtype.name}: choose another data set"
        )
    return image


def _numbers(own_names: tuple[str, ...], class_names: tuple[str, ...], name: str) -> np.ndarray:
    """`RecordLabels.numbers`: by their place among `class_names` where there are any."""
    number = {class_name: i for i, class_name in enumerate(class_names or own_names)}
    for class_name in own_names:
        if class_name not in number:
            raise ValueError(
                f"expected the classes in {name!r} to be among the training set's {len(class_names)}, got "
                f"{class_name!r} besides: choose a data set with the same classes"
            )
    return np.array([*(number[class_name] for class_name in own_names), -1], np.int64)
