"""Write lists of images chosen by their features: a diverse subset, pairs of duplicates."""

import csv
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from pic_tf.data.sources.classes import classes_of
from pic_tf.data.sources.source import Source
from pic_tf.feature_files.duplicates import pairs_above
from pic_tf.feature_files.subset import k_centres
from pic_tf.feature_files.table import FeatureFile
from pic_tf.files.replaced import replaced

DIVERSE_COLUMNS = ("rank", "id", "name", "label", "remaining_distance")
PAIR_COLUMNS = (
    *("rank", "cosine", "first_part", "first_id", "first", "first_label"),
    *("second_part", "second_id", "second", "second_label"),
)


def write_diverse(file: FeatureFile, source: Source, count: int, path: pathlib.Path) -> str:
    """Choose training images that cover all others, and write a line for each.

    Args:
      file: features.
      source: the training images.
      count: images to choose.
      path: CSV file to write.

    Returns:
      A line about the file.

    Raises:
      ValueError: for more images than have features.
      OSError: where the file cannot be written.
    """
    rows = file.of_part("train")
    there = int(np.sum(~np.isnan(rows[:, 0])))
    if count > there:
        raise ValueError(
            f"expected at most {there:,} images in --diverse, those with features, got {count:,}"
        )
    chosen, remaining = k_centres(rows, count, "diverse images")
    labels = classes_of(source, chosen)
    lines = (
        (rank, i, source.path(i), label, f"{distance:.6f}")
        for rank, (i, label, distance) in enumerate(zip(chosen.tolist(), labels, remaining), 1)
    )
    _write(path, [DIVERSE_COLUMNS, *lines])
    return (
        f"{count:,} images that cover {there:,}, none farther than {remaining[-1]:.4f} from the "
        f"nearest of them: {path}"
    )


def write_duplicates(
    file: FeatureFile, sources: dict[str, Source], least: float, path: pathlib.Path
) -> str:
    """Find pairs of images that are nearly the same, and write a line for each.

    Args:
      file: features.
      sources: the images by part.
      least: cosine from which on a pair counts.
      path: CSV file to write.

    Returns:
      A line about the file.

    Raises:
      ValueError: for too many pairs.
      OSError: where the file cannot be written.
    """
    pairs, cosines = pairs_above(file.features, least, "duplicates")
    parts, starts = list(sources), np.cumsum([0, *map(len, sources.values())])

    def identity(row: int) -> tuple[str, int, str, str]:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        source, i = sources[parts[part]], row - int(starts[part])
        return parts[part], i, source.path(i), *classes_of(source, [i])

    lines = (
        (rank, f"{cosine:.6f}", *identity(i), *identity(j))
        for rank, ((i, j), cosine) in enumerate(zip(pairs.tolist(), cosines), 1)
    )
    _write(path, [PAIR_COLUMNS, *lines])
    return f"{len(pairs):,} pairs of images with a cosine of at least {least}: {path}"


def _write(path: pathlib.Path, lines: Iterable[Sequence]) -> None:
    with replaced(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows(lines)
