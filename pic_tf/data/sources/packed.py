"""Packed data sets: images in a few large files, read at random by id. The format is in packed_format.py."""

import dataclasses
import hashlib
import os
import pathlib

import numpy as np
import tensorflow as tf
from array_record.python.array_record_module import ArrayRecordReader

from pic_tf.data.sources.packed_format import DESCRIPTION, Shard, damaged, read_description, read_manifest

# One record a read, in the thread that asks: the fastest way for batches of random ids.
_RANDOM_ACCESS = "readahead_buffer_size:0,max_parallelism:0"


@dataclasses.dataclass(frozen=True, eq=False)
class PackedSource:
    """A packed data set. Any number of threads may read from it at once.

    Attributes:
      folder: the folder.
      names: what the images were called where they were packed from.
      labels: int64 [N], or None.
      class_names: one name a label, or ().
      name: what to call it in messages.
      shards: in the order of the ids.
      readers: one a shard.
      sizes: int64 [N], bytes of each record.
      records_sha256: checksum of all records' checksums.
    """

    folder: str
    names: tuple[str, ...]
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    name: str
    shards: tuple[Shard, ...]
    readers: tuple[ArrayRecordReader, ...]
    sizes: np.ndarray
    records_sha256: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "_starts", np.cumsum([0, *(shard.records for shard in self.shards)]))

    def __len__(self) -> int:
        return len(self.names)

    def path(self, instance_id: int) -> str:
        """The original name of an instance, and where its record is."""
        shard = np.searchsorted(self._starts, instance_id, side="right") - 1
        file = os.path.join(self.folder, self.shards[shard].file)
        return f"{self.names[instance_id]} (record {instance_id - self._starts[shard]} of {file})"

    def fingerprint(self) -> str:
        """Hash of the records' checksums, so the folder may move and its shards may be cut elsewhere."""
        return self.records_sha256

    def read(self, instance_ids: tf.Tensor) -> tf.Tensor:
        """string [b], the encoded images, of int64 [b] ids.

        Raises:
          tf.errors.InvalidArgumentError: at run time (eagerly ValueError), for a shard that cannot be read, a record
            that is not the one of the manifest, or an id outside of [0, N).
        """
        records = tf.numpy_function(self._read, [instance_ids], tf.string, stateful=False)
        return tf.ensure_shape(records, instance_ids.shape)

    def _read(self, ids: np.ndarray) -> np.ndarray:
        if ids.size and not 0 <= ids.min() <= ids.max() < len(self):
            raise ValueError(f"expected ids in [0, {len(self)}), got {ids.min()} to {ids.max()}")
        records = np.full(len(ids), b"", object)  # objects: NumPy's own strings would lose zeros at the end
        shard_of = np.searchsorted(self._starts, ids, side="right") - 1
        for shard in np.unique(shard_of):
            places = np.flatnonzero(shard_of == shard)
            try:
                records[places] = self.readers[shard].read((ids[places] - self._starts[shard]).tolist())
            except RuntimeError as error:
                raise self._unreadable(shard, str(error)) from error
        lengths = np.fromiter(map(len, records), np.int64, len(ids))
        if (lengths != self.sizes[ids]).any():
            wrong = np.flatnonzero(lengths != self.sizes[ids])[0]
            raise self._unreadable(shard_of[wrong], f"{lengths[wrong]} bytes as record {ids[wrong]}")
        return records

    def _unreadable(self, shard: int, got: str) -> ValueError:
        return damaged(self.folder, f"the records of its manifest in {self.shards[shard].file}", got)


def is_packed(folder: str | os.PathLike) -> bool:
    """Whether a folder is a packed data set."""
    return pathlib.Path(folder, DESCRIPTION).is_file()


def open_packed(folder: str | os.PathLike, class_names: tuple[str, ...] = ()) -> PackedSource:
    """Open a packed data set. Its manifests are read, none of its images: 1.28 million images take a few seconds.

    Where all images have a class and there are at least two classes, they are the labels.

    Args:
      folder: path of the folder.
      class_names: classes that its classes must be among, to number the labels by; () for its own.

    Returns:
      The source.

    Raises:
      ValueError: for a data set of another format or with damage that shows without reading the images, or a class
        that is not among `class_names`.
    """
    root = pathlib.Path(folder)
    description = read_description(root)
    names, classes, sizes, records_sha256, readers = [], [], [], hashlib.sha256(), []
    for shard in description.shards:
        manifest = read_manifest(root, shard)
        readers.append(_open_shard(root, shard))
        names += manifest.names
        classes += manifest.labels
        sizes.append(manifest.sizes)
        records_sha256.update("".join(manifest.sha256).encode())
    labels = None
    found = set(classes)
    numbered = class_names or description.class_names
    if "" not in found and (len(found) > 1 or class_names):
        number = {name: i for i, name in enumerate(numbered)}
        for name in sorted(found):
            if name not in number:
                raise ValueError(
                    f"expected the classes in {str(root)!r} to be among the training set's {len(numbered)}, got "
                    f"{name!r} besides: name the folders alike"
                )
        labels = np.array([number[name] for name in classes], np.int64)
    return PackedSource(
        folder=str(root),
        names=tuple(names),
        labels=labels,
        class_names=() if labels is None else numbered,
        name=str(root),
        shards=description.shards,
        readers=tuple(readers),
        sizes=np.concatenate(sizes),
        records_sha256=records_sha256.hexdigest(),
    )


def damaged_records(source: PackedSource, shard: int) -> list[int]:
    """The ids of a shard's records that are not as they were packed; all of them are read.

    Args:
      source: the data set.
      shard: which one, from 0.

    Raises:
      ValueError: where the manifest is damaged.
    """
    first = sum(s.records for s in source.shards[:shard])
    found = []
    for i, sha256 in enumerate(read_manifest(pathlib.Path(source.folder), source.shards[shard]).sha256):
        try:
            record = source.readers[shard].read([i])[0]
        except RuntimeError:
            record = b""
        if hashlib.sha256(record).hexdigest() != sha256:
            found.append(first + i)
    return found


def _open_shard(folder: pathlib.Path, shard: Shard) -> ArrayRecordReader:
    try:
        with open(folder / shard.file, "rb"):  # for the reason, which ArrayRecord keeps to itself
            reader = ArrayRecordReader(os.fsencode(folder / shard.file), _RANDOM_ACCESS)
    except OSError as error:
        raise damaged(folder, f"a readable {shard.file}", str(error.strerror)) from error
    if reader.num_records() != shard.records:
        got = f"{reader.num_records()} of them" if reader.ok() else "a damaged file"
        raise damaged(folder, f"{shard.records} images in {shard.file}", got)
    return reader
