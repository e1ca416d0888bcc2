"""Read one split of a data set that TensorFlow Datasets has prepared in ArrayRecord files."""

import dataclasses
import hashlib
import os
import shlex
from typing import ClassVar

import numpy as np
import tensorflow as tf

from pic_tf.data.sources import tfds_builder
from pic_tf.data.sources.classes import class_numbers
from pic_tf.data.sources.formats import GIF_START, HEAD, NAMES, is_read
from pic_tf.data.sources.pixel_format import RGB, PixelFormat
from pic_tf.data.sources.records import RecordFile, Records, UnreadableFile, in_graph

_READ_AT_ONCE = 512  # records, images and all, that are in memory while labels are read
_LOOKED_AT = 64  # first records, none of which has a label where a split has none


@dataclasses.dataclass(frozen=True, eq=False)
class RecordLabels:
    """Labels read on demand: a label is in the record of its image, which is read with it.

    Index it as an array: `labels[ids]` is int64 [n] for integer ids [n]. `np.asarray(labels)` reads
    the whole split.

    Attributes:
      records: by id.
      feature: name of the label in the records.
      numbers: int64 [classes + 1], the class of each stored label; the last is for -1, which stands
        for none.
    """

    records: Records
    feature: str
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, ids) -> np.ndarray:
        ids = np.arange(len(self))[ids]
        parts = np.split(ids.ravel(), range(_READ_AT_ONCE, ids.size, _READ_AT_ONCE))
        stored = [_read(self.records, part, self.feature, tf.int64) for part in parts]
        return self.numbers[np.concatenate(stored)].reshape(ids.shape)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[:], dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsSource:
    """One split of a prepared data set; ids follow the order of its files.

    Attributes:
      name, labels, class_names, folder: as of `Source`; labels are read on demand.
      records: by id.
      feature: name of the image in the records.
      version: name, configuration and version of the data set.
      unlabelled: as of `Source`.
    """

    name: str
    labels: RecordLabels | None
    class_names: tuple[str, ...]
    folder: str
    records: Records
    feature: str
    version: str
    unlabelled: str = ""
    pixels: ClassVar[PixelFormat] = RGB

    def __len__(self) -> int:
        return len(self.records)

    def path(self, instance_id: int) -> str:
        """The file of an instance and the number of its record there."""
        file, number = self.records.locate(instance_id)
        return f"{file.path}[{number}]"

    def fingerprint(self) -> str:
        """Hash of the version and of the files' names and lengths; the folder may move."""
        files = [
            (os.path.basename(x.path), os.path.getsize(x.path), x.first, x.count)
            for x in self.records.files
        ]
        return hashlib.sha256(repr((self.version, files)).encode()).hexdigest()

    def read(self, instance_ids: tf.Tensor) -> tf.Tensor:
        """The encoded images, string [b], of int64 [b] ids."""
        return _read(self.records, instance_ids, self.feature, tf.string)


def open_tfds(name: str, split: str | None = None, class_names: tuple[str, ...] = ()) -> TfdsSource:
    """Open one split of a prepared data set and check that it holds JPEGs or PNGs.

    Args:
      name: as of `open_split`.
      split: as of `open_split`.
      class_names: as of `open_split`.

    Returns:
      The source.

    Raises:
      ValueError: as of `open_split`, and for images of another format.
    """
    source = open_split(name, split, class_names)
    head = source.read(tf.constant([0], tf.int64))[0].numpy()[:HEAD]
    if not is_read(head):
        got, advice = f"one that starts with {head[:8]!r}", "choose another data set"
        if head.startswith(GIF_START):
            pack = f"python tools/pack.py --source={shlex.quote(source.name)} --output=PACKED"
            got, advice = "a GIF", f"pack it with `{pack}`"
        raise ValueError(
            f"expected {NAMES} images in {source.feature!r} of {name!r}, "
            f"got {got} in {source.path(0)!r}: {advice}"
        )
    if source.labels and (source.labels[:_LOOKED_AT] < 0).all():  # the test part of a challenge
        missing = f"no labels, since those of {source.name!r} are -1"
        return dataclasses.replace(source, labels=None, class_names=(), unlabelled=missing)
    return source


def open_split(
    name: str, split: str | None = None, class_names: tuple[str, ...] = ()
) -> TfdsSource:
    """Open one split of a prepared data set, whatever the format of its images.

    Args:
      name: its name in TensorFlow Datasets ("cifar10", "imagenet2012:5.1.0", "ds/config"), prepared
        in the usual place or in TFDS_DATA_DIR, or the folder that holds its files
        ("/data/cifar10/3.0.2").
      split: such as "train", "train[:90%]" or "train+test"; None for "train".
      class_names: classes that its classes must be among, to number the labels by; () for its own.

    Returns:
      The source.

    Raises:
      ValueError: an unknown data set or split, one that is not prepared or not in ArrayRecord
        files, one without images or with several, images that are not encoded, or a class that is
        not among `class_names`.

    Source: https://www.tensorflow.org/datasets/splits.
    """
    split = "train" if split is None else split
    builder = tfds_builder.array_record_builder(name)
    folder, info = str(builder.data_dir), builder.info
    image = tfds_builder.image_feature(info.features, name)
    label = tfds_builder.label_feature(info.features)
    own_names = tuple(info.features[label].names) if label else ()
    names = (class_names or own_names) if label else ()
    numbers = class_numbers(own_names, names, name)
    records = open_records(tfds_builder.record_files(info.splits, name, split))
    of_stored = np.array([*(numbers[class_name] for class_name in own_names), -1], np.int64)
    labels = RecordLabels(records, label, of_stored) if label else None
    return TfdsSource(f"tfds:{name}:{split}", labels, names, folder, records, image, info.full_name)


def open_records(files: list[RecordFile]) -> Records:
    """Open the records of a split.

    Args:
      files: as of `tfds_builder.record_files`.

    Raises:
      ValueError: for a file that cannot be read, or holds another number of records.
    """
    try:
        return Records(files)
    except UnreadableFile as error:
        raise ValueError(
            f"expected {error.file.total} records in {error.file.path!r}, got {error}: "
            "prepare the data set again"
        ) from error


def _read(records: Records, ids: tf.Tensor, feature: str, dtype: tf.DType) -> tf.Tensor:
    """One feature, `dtype` [b], of the examples of integer [b] ids."""
    examples = in_graph(records.read, ids)
    return tf.io.parse_example(examples, {feature: tf.io.FixedLenFeature([], dtype)})[feature]
