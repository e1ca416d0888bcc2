"""Write features with the names of their images as Parquet, or as NumPy array and CSV; read them.

Columns: id and part (train or held_out) of the image, its name, its label (null without one), and
broken, the reason why it has no features (null for those that have some).
"""

import csv
import dataclasses
import errno
import itertools
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.sources.classes import classes_of
from pic_tf.data.sources.source import Source
from pic_tf.files.mapped import reserve
from pic_tf.files.replaced import replaced

COLUMNS = ("id", "part", "name", "label", "broken")
FORMAT_VERSION = 1
_METADATA = b"pic_tf"  # key of the card in the metadata of a Parquet file
_GROUP = 4096  # rows in memory at once
_ADVICE = "make one with pic_tf.embed"


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Images of a feature file: the training part, or the held-out one.

    Attributes:
      name: "train" or "held_out".
      source: the images.
      broken: those of them that cannot be decoded.
    """

    name: str
    source: Source
    broken: BrokenImages

    def lines(self) -> Iterator[tuple[int, str, str, str | None, str | None]]:
        """Iterate over the values of `COLUMNS` of each image."""
        for first in range(0, len(self.source), _GROUP):
            ids = range(first, min(first + _GROUP, len(self.source)))
            for i, label in zip(ids, classes_of(self.source, ids)):
                reason = self.broken.reasons.get(i)
                yield i, self.name, self.source.path(i), label or None, reason


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureFile:
    """An open feature file.

    Attributes:
      path: the file.
      card: what the features are of.
      features: float32 [N, C] mapped from a file; NaN for broken images.
    """

    path: str
    card: dict[str, Any]
    features: np.ndarray

    def of_part(self, name: str) -> np.ndarray:
        """float32 [n, C], the features of "train" or "held_out"; [0, C] without such a part."""
        first = 0
        for part, count in self.card["parts"]:
            if part == name:
                return self.features[first : first + count]
            first += count
        return self.features[:0]


def write_parquet(
    path: pathlib.Path, rows: np.ndarray, parts: list[Part], card: dict[str, Any]
) -> None:
    """Write a Parquet file; some thousand rows of it are in memory at once.

    Args:
      path: the file; an older one is replaced once the new one is complete.
      rows: float32 [N, C], NaN for broken images.
      parts: N images.
      card: facts to keep, as JSON can hold them.

    Raises:
      OSError: where it cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    size = rows.shape[1]
    texts = [pa.field(name, pa.string()) for name in COLUMNS[1:]]
    schema = pa.schema([("id", pa.int64()), *texts, ("features", pa.list_(pa.float32(), size))])
    schema = schema.with_metadata({_METADATA: json.dumps(card)})
    lines = itertools.chain.from_iterable(part.lines() for part in parts)
    with (
        replaced(path, "wb") as file,
        parquet.ParquetWriter(file, schema, use_dictionary=["part", "label", "broken"]) as writer,
    ):
        for first in range(0, len(rows), _GROUP):
            some = np.ascontiguousarray(rows[first : first + _GROUP])
            columns = list(zip(*itertools.islice(lines, _GROUP)))
            missing = pa.array([reason is not None for reason in columns[-1]])
            values = pa.FixedSizeListArray.from_arrays(pa.array(some.ravel()), size, mask=missing)
            arrays = [pa.array(x, field.type) for x, field in zip(columns, schema)]
            writer.write_table(pa.Table.from_arrays([*arrays, values], schema=schema))


def write_npy(
    path: pathlib.Path, rows: pathlib.Path, parts: list[Part], card: dict[str, Any]
) -> None:
    """Write NAME.npy, NAME.csv with a line for each of its rows, and NAME.json with the card.

    Args:
      path: NAME.npy.
      rows: an .npy file, float32 [N, C], NaN for broken images; it is moved.
      parts: N images.
      card: as of `write_parquet`.

    Raises:
      OSError: where they cannot be written.
    """
    path.with_suffix(".json").unlink(missing_ok=True)  # that of other features
    text = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
    with replaced(path.with_suffix(".csv"), **text) as file:
        csv.writer(file).writerow(COLUMNS)
        for part in parts:
            csv.writer(file).writerows(part.lines())
    os.replace(rows, path)
    with replaced(path.with_suffix(".json")) as file:
        json.dump(card, file, indent=1)


def files_of(path: pathlib.Path) -> list[pathlib.Path]:
    """Name all files that hold features: NAME.parquet, or NAME.npy, NAME.csv and NAME.json."""
    beside = (".csv", ".json") if path.suffix == ".npy" else ()
    return [path, *map(path.with_suffix, beside)]


def read_card(path: str | os.PathLike) -> dict[str, Any]:
    """Read the facts that a feature file keeps.

    Args:
      path: NAME.parquet or NAME.npy.

    Returns:
      The card.

    Raises:
      ValueError: where there is no feature file, or one of another version.
    """
    path = pathlib.Path(path)
    try:
        card = json.loads(_metadata(path))
        version, _ = card["format_version"], card["key"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason, *_ = str(error).splitlines() or [type(error).__name__]
        raise ValueError(
            f"expected a file of features at {str(path)!r}, got none that can be read "
            f"({reason}): {_ADVICE}"
        ) from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"expected features of format {FORMAT_VERSION} in {str(path)!r}, got {version}: "
            f"{_ADVICE}"
        )
    return card


def open_features(path: str | os.PathLike) -> FeatureFile:
    """Open a feature file.

    Args:
      path: NAME.parquet or NAME.npy.

    Returns:
      The file. Features of a Parquet file come to a file without a name, which is gone with them.

    Raises:
      ValueError: where there is none, or one of another version, or no room for this file.
    """
    path, card = pathlib.Path(path), read_card(path)
    shape = sum(count for _, count in card["parts"]), card["feature_dim"]
    try:
        if path.suffix == ".npy":
            features = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            features = _mapped(path, shape)
        if features.shape != shape:
            raise ValueError(f"rows {list(features.shape)} instead of {list(shape)}")
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise ValueError(
                f"expected room for {4e-9 * math.prod(shape):.3g} GB of features in "
                f"{tempfile.gettempdir()!r}, got none: set TMPDIR to another place, or write "
                "them as NAME.npy, which is mapped as it is"
            ) from error
        raise ValueError(
            f"expected the features of all images in {str(path)!r}, got {error}: {_ADVICE}"
        ) from error
    return FeatureFile(str(path), card, features)


def _metadata(path: pathlib.Path) -> str | bytes:
    if path.suffix == ".npy":
        return path.with_suffix(".json").read_text()
    from pyarrow import parquet

    return (parquet.read_schema(path).metadata or {})[_METADATA]


def _mapped(path: pathlib.Path, shape: tuple[int, int]) -> np.ndarray:
    """Copy the features of a Parquet file to a file that can be mapped, in parts."""
    from pyarrow import parquet

    with tempfile.TemporaryFile() as unnamed, parquet.ParquetFile(path) as file:
        rows, first = np.memmap(unnamed, np.float32, "w+", shape=shape), 0
        reserve(unnamed.fileno())
        for batch in file.iter_batches(_GROUP, columns=["features"]):
            (column,) = batch.columns
            fine = column.is_valid().to_numpy(zero_copy_only=False)
            some = rows[first : first + len(column)]
            some[~fine] = np.nan
            some[fine] = column.flatten().to_numpy().reshape(-1, shape[1])
            first += len(column)
        if first < len(rows):
            raise ValueError(f"{first:,} rows instead of {len(rows):,}")
    return rows
