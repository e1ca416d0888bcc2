"""Read and write the files of a packed data set.

The data set is a folder, which tools/pack.py writes:

    dataset.json              version of the format, number of images, classes, and the shards
    images-00000.arrayrecord  a shard: encoded images (JPEG, PNG or WebP), one a record
    images-00000.csv          its manifest: id, name, label, width, height, bytes and sha256
    left_out.csv              name of each file that could not be packed, and why

The id of an image is its position over all shards in their order. Shards are appended and never
rewritten, so an id stands for the same image for ever. dataset.json is replaced last: what it does
not name is not part of the data set.
"""

import csv
import dataclasses
import hashlib
import io
import itertools
import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pic_tf.files.replaced import replaced

DESCRIPTION = "dataset.json"
# ArrayRecord's: each image for itself; they are compressed already.
WRITER_OPTIONS = "group_size:1,uncompressed"
_FORMAT = 1
SHARD_NAME = re.compile(r"images-\d{5,}\.arrayrecord")
FORMAT_LINE = re.compile(rb'\s*\{\s*"format":\s*\d+,\s*"images":')  # the beginning of DESCRIPTION
_COLUMNS = ("id", "name", "label", "width", "height", "bytes", "sha256")
_COLUMNS_READ = ("name", "label", "bytes", "sha256")


class Row(NamedTuple):
    """A line of a manifest, but for the id.

    Attributes:
      name: name of the image in the source that it was packed from.
      label: name of its class, "" for none.
      width: pixels.
      height: pixels.
      size: bytes of the record.
      sha256: checksum of the record, in hexadecimal digits.
    """

    name: str
    label: str
    width: int
    height: int
    size: int
    sha256: str


class Manifest(NamedTuple):
    """Columns of a manifest, as far as reading needs them.

    Attributes:
      names, labels, sha256: see `Row`.
      sizes: int64, `size` of `Row`.
    """

    names: list[str]
    labels: list[str]
    sizes: np.ndarray
    sha256: list[str]


class Shard(NamedTuple):
    """Entry of a shard in dataset.json.

    Attributes:
      file: name of the ArrayRecord file; its manifest is the .csv beside it.
      records: number of images.
      manifest_sha256: checksum of the manifest, in hexadecimal digits.
    """

    file: str
    records: int
    manifest_sha256: str


@dataclasses.dataclass(frozen=True)
class Description:
    """Content of dataset.json.

    Attributes:
      class_names: in the order of their numbers.
      short_side: short side in pixels that images were shrunk to; 0 for none.
      quality: quality of the JPEGs that packing made.
      shards: in the order of the ids.
    """

    class_names: tuple[str, ...]
    short_side: int
    quality: int
    shards: tuple[Shard, ...]


def read_description(folder: pathlib.Path) -> Description:
    """Read dataset.json.

    Raises:
      ValueError: for a file that is missing, damaged or of another format.
    """
    path = folder / DESCRIPTION
    try:
        values = json.loads(path.read_bytes())
        found = values["format"]
        if found == _FORMAT:
            return _checked(values)
    except OSError as error:
        raise damaged(folder, f"a readable {DESCRIPTION}", str(error.strerror)) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        got = f"{type(error).__name__}: {error}"
        raise damaged(folder, f"a {DESCRIPTION} as packing writes it", got) from error
    raise ValueError(
        f"expected format {_FORMAT} in {str(path)!r}, got {found!r}: read it with the release of "
        "pic_tf that packed it, or pack again into another folder"
    )


def _checked(values: dict) -> Description:
    shards = tuple(Shard(**shard) for shard in values["shards"])
    records = [shard.records for shard in shards]
    short_side, quality = values["short_side"], values["quality"]
    description = Description(tuple(values["class_names"]), short_side, quality, shards)
    if not all(type(x) is int for x in (short_side, quality, values["images"], *records)):
        raise TypeError("numbers that are not whole")
    if min(records, default=0) < 1 or sum(records) != values["images"]:
        raise ValueError("another number of images than in its shards")
    if not all(SHARD_NAME.fullmatch(shard.file) for shard in shards):
        raise ValueError("shards with other names")
    if not all(isinstance(name, str) for name in description.class_names):
        raise TypeError("class names that are no text")
    return description


def write_description(folder: pathlib.Path, description: Description) -> None:
    """Replace dataset.json; the shards it names and their manifests must be there.

    Raises:
      OSError: if it cannot be written; the old one is still there.
    """
    values = {
        "format": _FORMAT,
        "images": sum(shard.records for shard in description.shards),
        "short_side": description.short_side,
        "quality": description.quality,
        "class_names": description.class_names,
        "shards": [shard._asdict() for shard in description.shards],
    }
    _write(folder / DESCRIPTION, json.dumps(values, indent=1).encode())


def read_manifest(folder: pathlib.Path, shard: Shard) -> Manifest:
    """Read the manifest of a shard.

    Raises:
      ValueError: for a manifest that is missing, or another one than dataset.json knows.
    """
    path = _manifest(folder, shard.file)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise damaged(folder, f"a readable {path.name}", str(error.strerror)) from error
    if hashlib.sha256(content).hexdigest() != shard.manifest_sha256:
        raise damaged(folder, f"{path.name} as packing wrote it", "another content")
    # One flat list: a list for each of a million rows would have Python look for cycles among them
    # again and again.
    lines = csv.reader(io.StringIO(content.decode("utf-8", "surrogateescape"), ""))
    columns = len(_COLUMNS)
    fields = list(itertools.chain.from_iterable(lines))[columns:]
    if len(fields) != shard.records * columns:
        expected = f"{shard.records} images in {path.name}"
        raise damaged(folder, expected, f"{len(fields) / columns:g}")
    names, labels, sizes, sha256 = (fields[_COLUMNS.index(c) :: columns] for c in _COLUMNS_READ)
    return Manifest(names, labels, np.array(sizes, np.int64), sha256)


def write_manifest(folder: pathlib.Path, file: str, first_id: int, rows: Sequence[Row]) -> Shard:
    """Write the manifest of a shard.

    Args:
      folder: the packed data set.
      file: name of the shard.
      first_id: id of its first image.
      rows: one a record.

    Returns:
      The entry of the shard in dataset.json.

    Raises:
      OSError: if it cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)  # with lines ended by CR LF it quotes names with either in them
    writer.writerow(_COLUMNS)
    writer.writerows((first_id + i, *row) for i, row in enumerate(rows))
    content = text.getvalue().encode("utf-8", "surrogateescape")  # a file name need not be UTF-8
    _write(_manifest(folder, file), content)
    return Shard(file, len(rows), hashlib.sha256(content).hexdigest())


def damaged(folder: str | os.PathLike, expected: str, got: str) -> ValueError:
    """Make the error for a damaged data set."""
    return ValueError(
        f"expected {expected} in the packed data set {str(folder)!r}, got {got}: "
        "restore it, or pack again into another folder"
    )


def _manifest(folder: pathlib.Path, file: str) -> pathlib.Path:
    return (folder / file).with_suffix(".csv")


def _write(path: pathlib.Path, content: bytes) -> None:
    with replaced(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
