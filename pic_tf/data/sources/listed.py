"""Read images that a table lists: a CSV or Parquet file of paths, with labels or without."""

import csv
import os
import pathlib
from collections import Counter

from pic_tf.data.sources.classes import Labels, labels_of
from pic_tf.data.sources.folder import FolderSource, check_first_bytes
from pic_tf.data.sources.pixel_format import RGB, PixelFormat

ENDINGS = (".csv", ".parquet")
_PATHS, _LABELS = ("path", "name"), ("label", "class")  # columns


def open_list(
    file: str,
    class_names: tuple[str, ...] | None = (),
    seed: int = 0,
    max_broken: float = 0.01,
    pixels: PixelFormat = RGB,
) -> FolderSource:
    """Open the images that a table lists; ids follow its rows.

    Paths are in the column `path`, or else `name`, from the folder of the table on, or, where the
    first one is not there, from the current folder on; classes in the column `label`, or else
    `class`, where there is one.

    Args:
      file: a CSV or Parquet file.
      class_names: classes that its own must be among, to number the labels by; () for its own, None
        for its own even if it is one alone.
      seed, max_broken, pixels: as of `open_folder`.

    Returns:
      The source.

    Raises:
      ValueError: for a table that cannot be read, without paths or with one twice, files that are
        no images, or a class that is not among `class_names`.
    """
    try:
        paths, labels = (_parquet if file.endswith(".parquet") else _csv)(file)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        reason, *_ = str(error).splitlines() or [type(error).__name__]
        raise ValueError(
            f"expected a table with a column {' or '.join(_PATHS)} in {file!r}, got {reason}: "
            "write one row an image"
        ) from error
    if not paths:
        raise ValueError(f"expected images in {file!r}, got no row: write one row an image")
    root, here = pathlib.Path(file).absolute().parent, pathlib.Path.cwd()
    if not (root / paths[0]).exists() and (here / paths[0]).exists():
        root = here
    # No folder is that of all images: these paths stand alone.
    found = [os.path.normpath(root / path) for path in paths]
    (often, times), *_ = Counter(found).most_common(1)
    if times > 1:
        raise ValueError(
            f"expected each image once in {file!r}, got {often!r} {times} times: leave one row"
        )
    check_first_bytes(root, found, seed, max_broken, pixels)
    known = _labels(paths, labels, class_names, file)
    labels = known.labels, known.class_names, known.missing
    return FolderSource("", tuple(found), *labels, file, pixels)


def _labels(
    paths: list[str], labels: list[str] | None, class_names: tuple[str, ...] | None, file: str
) -> Labels:
    if labels is None:
        return Labels(None)
    if "" in labels:
        first = paths[labels.index("")]
        return Labels(None, missing=f"no labels, since {first!r} has none in {file!r}")
    return labels_of(paths, labels, sorted(set(labels)), class_names, file)


def _csv(file: str) -> tuple[list[str], list[str] | None]:
    with open(file, newline="", encoding="utf-8-sig", errors="surrogateescape") as opened:
        rows = csv.DictReader(opened)
        path, label = _columns(rows.fieldnames or [])
        table = [(row[path], row[label] if label else "") for row in rows]
    if any(not path for path, _ in table):
        raise ValueError("a row without a path")
    return [path for path, _ in table], [x or "" for _, x in table] if label else None


def _parquet(file: str) -> tuple[list[str], list[str] | None]:
    from pyarrow import parquet

    path, label = _columns(parquet.read_schema(file).names)
    table = parquet.read_table(file, columns=[path, *([label] if label else [])])
    paths = table[path].to_pylist()
    if not all(isinstance(x, str) and x for x in paths):
        raise ValueError("a row without a path")
    labels = ["" if x is None else str(x) for x in table[label].to_pylist()] if label else None
    return paths, None if labels is None or not any(labels) else labels


def _columns(names: list[str]) -> tuple[str, str | None]:
    """Choose the columns of paths and of labels."""
    paths = [name for name in _PATHS if name in names]
    if not paths:
        raise ValueError(f"columns {', '.join(names) or 'without names'}")
    label = next((name for name in _LABELS if name in names), None)
    alike = [name for name in names if name and name.strip().lower() in _LABELS]
    if alike and not label:  # it would be a table without labels, and nobody told
        raise ValueError(f"a column {alike[0]!r}, which is to be called {' or '.join(_LABELS)}")
    return paths[0], label
