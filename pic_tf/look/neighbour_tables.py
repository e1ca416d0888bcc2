"""Write images and their neighbours as CSV files and contact sheets."""

import csv
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pic_tf.data.sources.classes import classes_of
from pic_tf.data.sources.source import Source
from pic_tf.files.replaced import replaced
from pic_tf.look.contact_sheet import Cell, Group, save_contact_sheet, thumbnails

COLUMNS = (
    "query_id",
    "query",
    "query_class",
    "rank",
    "neighbour_id",
    "neighbour",
    "neighbour_class",
    "cosine",
)
PAIR_COLUMNS = (
    "rank",
    "cosine",
    "first_id",
    "first",
    "first_class",
    "second_id",
    "second",
    "second_class",
)
_PAIRS_A_ROW = 4


@dataclasses.dataclass(frozen=True, eq=False)
class NeighbourTable:
    """Images, each with its nearest ones.

    Attributes:
      asked: source of the images.
      ids: int64 [q] of the images.
      searched: source of the neighbours.
      found: int64 [q, k] ids of the neighbours, the nearest first.
      cosines: float [q, k] of the neighbours.
    """

    asked: Source
    ids: np.ndarray
    searched: Source
    found: np.ndarray
    cosines: np.ndarray

    def without_themselves(self) -> "NeighbourTable":
        """Drop each image from its own neighbours, if searched for among them: k - 1 remain."""
        others = self.found != self.ids[:, None]
        others[others.all(1), -1] = False  # behind more equals than were asked for
        found, cosines = (x[others].reshape(len(self.ids), -1) for x in (self.found, self.cosines))
        return dataclasses.replace(self, found=found, cosines=cosines)

    def agreement(self) -> float | None:
        """Compute the share of neighbours of the image's class; None without known classes."""
        if self.asked.labels is None or self.searched.labels is None:
            return None
        own = self.asked.labels[self.ids][:, None]
        return float(np.mean(self.searched.labels[self.found] == own))

    def rows(self) -> Iterator[tuple[int, list[int], np.ndarray]]:
        """Iterate over (id, ids of the neighbours, their cosines) of each image."""
        return zip(self.ids.tolist(), self.found.tolist(), self.cosines)


def write_neighbours(neighbours: NeighbourTable, path: pathlib.Path) -> None:
    """Write a CSV file, a line a neighbour."""
    lines = (
        (*_identity(neighbours.asked, i), rank, *_identity(neighbours.searched, j), f"{cosine:.6f}")
        for i, found, cosines in neighbours.rows()
        for rank, (j, cosine) in enumerate(zip(found, cosines), 1)
    )
    write_csv(path, [COLUMNS, *lines])


def draw_neighbours(neighbours: NeighbourTable, title: str, path: pathlib.Path) -> None:
    """Draw a contact sheet: a row an image, neighbours at the right, framed by class agreement."""
    asked, searched = neighbours.asked, neighbours.searched
    queries = thumbnails(asked, neighbours.ids)
    images = thumbnails(searched, neighbours.found.ravel())
    rows = []
    for i, found, cosines in neighbours.rows():
        cells = []
        for j, cosine in zip(found, cosines):
            words = (f"{cosine:.3f}", *_class_of(searched, j))
            cells.append(Cell(images[j], words, _agree(asked, i, searched, j)))
        titles = ("", "") if rows else ("image", "nearest images")
        query = Cell(queries[i], (_name(asked, i), *_class_of(asked, i)))
        rows.append([Group(titles[0], (query,)), Group(titles[1], tuple(cells))])
    save_contact_sheet(rows, title, path)


def write_pairs(source: Source, pairs: np.ndarray, cosines: np.ndarray, path: pathlib.Path) -> None:
    """Write a CSV file, a line a pair: int64 [p, 2] ids, float [p] cosines."""
    lines = (
        (rank, f"{cosine:.6f}", *_identity(source, i), *_identity(source, j))
        for rank, ((i, j), cosine) in enumerate(zip(pairs.tolist(), cosines), 1)
    )
    write_csv(path, [PAIR_COLUMNS, *lines])


def draw_pairs(
    source: Source, pairs: np.ndarray, cosines: np.ndarray, title: str, path: pathlib.Path
) -> None:
    """Draw a contact sheet of pairs, four a row: int64 [p, 2] ids, float [p] cosines."""
    images = thumbnails(source, pairs.ravel())
    groups = []
    for (i, j), cosine in zip(pairs.tolist(), cosines):
        agree = _agree(source, i, source, j)
        cells = (Cell(images[k], (_name(source, k), *_class_of(source, k)), agree) for k in (i, j))
        groups.append(Group(f"cosine {cosine:.4f}", tuple(cells)))
    rows = [groups[first : first + _PAIRS_A_ROW] for first in range(0, len(groups), _PAIRS_A_ROW)]
    save_contact_sheet(rows, title, path)


def write_csv(path: pathlib.Path, lines: Iterable[Sequence]) -> None:
    """Write a CSV file that may name files, whose names need not be UTF-8."""
    with replaced(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows(lines)


def _identity(source: Source, i: int) -> tuple[int, str, str]:
    return i, source.path(i), *classes_of(source, [i])


def _name(source: Source, i: int) -> str:
    return os.path.basename(source.path(i))


def _class_of(source: Source, i: int) -> tuple[str, ...]:
    """The name of an image's class, or nothing."""
    return tuple(filter(None, classes_of(source, [i])))


def _agree(one: Source, i: int, other: Source, j: int) -> bool | None:
    [of_one], [of_other] = classes_of(one, [i]), classes_of(other, [j])
    return of_one == of_other if of_one and of_other else None
