"""Read packed data sets, images in a few large files (packed_format.py), at random by id."""

import dataclasses
import hashlib
import io
import os
import pathlib

import numpy as np
import tensorflow as tf

from pic_tf.data.sources.band_formats import format_in
from pic_tf.data.sources.classes import labels_of
from pic_tf.data.sources.packed_format import (
    DESCRIPTION,
    FORMAT_LINE,
    SHARD_NAME,
    Shard,
    damaged,
    read_description,
    read_manifest,
)
from pic_tf.data.sources.pixel_format import RGB, PixelFormat
from pic_tf.data.sources.records import RecordFile, Records, UnreadableFile, in_graph

_LOOKED_AT = 64  # records whose format is looked at


@dataclasses.dataclass(frozen=True, eq=False)
class PackedSource:
    """A packed data set. Any number of threads may read from it at once.

    Attributes:
      folder: the folder.
      names: names of the images in the source that they were packed from.
      labels: int64 [N], or None.
      class_names: one name a label, or ().
      unlabelled: the reason why there are no labels.
      name: the name of the images in messages.
      shards: in the order of the ids.
      records: those of all shards, by id.
      sizes: int64 [N], bytes of each record.
      records_sha256: checksum of all records' checksums.
      pixels: channels and bits of the images, as they are read.
    """

    folder: str
    names: tuple[str, ...]
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    unlabelled: str
    name: str
    shards: tuple[Shard, ...]
    records: Records
    sizes: np.ndarray
    records_sha256: str
    pixels: PixelFormat = RGB

    def __len__(self) -> int:
        return len(self.names)

    def path(self, instance_id: int) -> str:
        """The original name of an instance, and the place of its record."""
        file, number = self.records.locate(instance_id)
        return f"{self.names[instance_id]} (record {number} of {file.path})"

    def fingerprint(self) -> str:
        """Hash of the records' checksums: the folder may move, and shards be cut elsewhere."""
        return self.records_sha256

    def read(self, instance_ids: tf.Tensor) -> tf.Tensor:
        """The encoded images, string [b], of int64 [b] ids.

        Raises:
          tf.errors.InvalidArgumentError: at run time (eagerly ValueError), for a shard that cannot
            be read, a record other than that of the manifest, or an id outside of [0, N).
        """
        return in_graph(self.encoded, instance_ids)

    def encoded(self, ids: np.ndarray) -> np.ndarray:
        """The encoded images, bytes [b], of integer [b] ids.

        Raises:
          ValueError: as of `read`.
        """
        try:
            records = self.records.read(ids)
        except UnreadableFile as error:
            raise self._damaged(error.file, str(error)) from error
        lengths = np.fromiter(map(len, records), np.int64, len(ids))
        if (lengths != self.sizes[ids]).any():
            wrong = np.flatnonzero(lengths != self.sizes[ids])[0]
            shard, _ = self.records.locate(ids[wrong])
            raise self._damaged(shard, f"{lengths[wrong]} bytes as record {ids[wrong]}")
        return records

    def _damaged(self, shard: RecordFile, got: str) -> ValueError:
        expected = f"the records of its manifest in {os.path.basename(shard.path)}"
        return damaged(self.folder, expected, got)


def is_packed(folder: str | os.PathLike) -> bool:
    """Tell whether a folder is a packed data set, a damaged one too.

    A dataset.json of another tool makes none: ours has a line of its format, or a shard beside it.
    """
    path = pathlib.Path(folder, DESCRIPTION)
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            ours = FORMAT_LINE.match(file.read(200))
    except OSError:  # it is opened as a packed one, and refused
        return True
    return bool(ours) or any(SHARD_NAME.fullmatch(name) for name in os.listdir(folder))


def open_packed(
    folder: str | os.PathLike,
    class_names: tuple[str, ...] | None = (),
    pixels: PixelFormat = RGB,
) -> PackedSource:
    """Open a packed data set.

    Its manifests are read, none of its images: 1.28 million images take a few seconds.

    Where all images have a class and there are at least two classes, they are the labels.

    Args:
      folder: path of the folder.
      class_names: classes that its classes must be among, to number the labels by; () for its own,
        None for its own even if it is one alone.
      pixels: format of the images; RGB of 8 bits is made of any, others must be there.

    Returns:
      The source.

    Raises:
      ValueError: for a data set of another format or with damage that shows without reading the
        images, or a class that is not among `class_names`.
    """
    root = pathlib.Path(folder)
    description = read_description(root)
    names, classes, sizes = [], [], []
    records_sha256 = hashlib.sha256()
    for shard in description.shards:
        manifest = read_manifest(root, shard)
        names += manifest.names
        classes += manifest.labels
        sizes.append(manifest.sizes)
        records_sha256.update("".join(manifest.sha256).encode())
    found = labels_of(names, classes, description.class_names, class_names, str(root))
    source = PackedSource(
        folder=str(root),
        names=tuple(names),
        labels=found.labels,
        class_names=found.class_names,
        unlabelled=found.missing,
        name=str(root),
        shards=description.shards,
        records=_open_records(root, description.shards),
        sizes=np.concatenate(sizes),
        records_sha256=records_sha256.hexdigest(),
        pixels=pixels,
    )
    _check_format(source)
    return source


def _check_format(source: PackedSource) -> None:
    """Raise ValueError where one of at most 64 images is not of a format that must be there."""
    if source.pixels == RGB:
        return
    ids = np.unique(np.linspace(0, len(source) - 1, _LOOKED_AT).astype(np.int64))
    for instance_id, record in zip(ids.tolist(), source.encoded(ids)):
        found = format_in(io.BytesIO(record))
        if found != source.pixels:
            raise ValueError(
                f"expected images of {source.pixels} in {source.name!r}, got "
                f"{found or 'none that can be read'} in {source.path(instance_id)!r}: see "
                "--channels and --bit_depth, or pack again with them"
            )


def damaged_records(source: PackedSource, shard: int) -> list[int]:
    """Read all records of a shard, and list the ids of damaged ones.

    Args:
      source: the data set.
      shard: number of the shard, from 0.

    Raises:
      ValueError: for a damaged manifest.
    """
    first = sum(s.records for s in source.shards[:shard])
    found = []
    manifest = read_manifest(pathlib.Path(source.folder), source.shards[shard])
    for instance_id, sha256 in enumerate(manifest.sha256, first):
        try:
            [record] = source.records.read(np.array([instance_id]))
        except UnreadableFile:
            record = b""
        if hashlib.sha256(record).hexdigest() != sha256:
            found.append(instance_id)
    return found


def _open_records(folder: pathlib.Path, shards: tuple[Shard, ...]) -> Records:
    try:
        return Records([RecordFile(str(folder / s.file), 0, s.records, s.records) for s in shards])
    except UnreadableFile as error:
        expected = f"{error.file.total} images in {os.path.basename(error.file.path)}"
        raise damaged(folder, expected, str(error)) from error
