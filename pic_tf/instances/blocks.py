"""Rows that are off the device: blocks in the order of visits, each written once."""

import pathlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pic_tf.replaced_file import keep, replaced

if TYPE_CHECKING:
    from pic_tf.instances.regrouped import Regrouped

TABLES = ("weights", "momentum", "stamp")
_NAME = re.compile(r"block-(\d{12}|-\d{11})\.npz")


class Blocks:
    """Blocks of rows by number, in host memory or as files of a folder.

    A block holds the rows that left the device together, in visiting order. Block j is written when the window leaves
    it and never changes; one sweep over all instances later its rows are read once and are then of no use. A file is
    there as a whole or not at all, and Python's zip format checks its checksum as it is read.

    Args:
      folder: to keep files in, also an attribute; None for host memory.
      others: where blocks are that other numbers of replicas have written.

    Raises:
      OSError: where the folder cannot be made.
    """

    def __init__(self, folder: pathlib.Path | None = None, others: Sequence["Regrouped"] = ()):
        self.folder, self._memory, self._others = folder, {}, others
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def write(self, number: int, rows: dict[str, np.ndarray]) -> None:
        """Keep a block: arrays [S, ...] by name."""
        if self.folder is None:
            self._memory[number] = rows
            return
        path = self._path(number)
        try:
            with replaced(path, "wb", durable=True) as file:
                np.savez(file, **rows)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error

    def read(self, number: int) -> dict[str, np.ndarray]:
        """The arrays of a block.

        Raises:
          ValueError: where it is not there, or is not as it was written.
        """
        if self.folder is None:
            return self._memory[number]
        path = self._path(number)
        for other in self._others if not path.exists() else ():
            if other.has(number):
                return other.read(number)
        try:
            with np.load(path, allow_pickle=False) as file:
                rows = dict(file)
            if set(rows) != set(TABLES):
                raise ValueError(f"tables {sorted(rows)}")
            return rows
        except Exception as error:  # what zipfile and numpy make of a damaged file has many names
            raise ValueError(
                f"expected a block of rows in {str(path)!r}, got none that can be read ({error}): bring it back from a "
                "copy, or begin anew with another --output_dir"
            ) from error

    def keep(self) -> None:
        """Bring the names of the files to the disk too."""
        if self.folder is not None:
            keep(self.folder)

    def has(self, number: int) -> bool:
        """Whether a block is there."""
        if self.folder is None:
            return number in self._memory
        return self._path(number).exists() or any(other.has(number) for other in self._others)

    def numbers(self) -> list[int]:
        """Which blocks are there, in ascending order."""
        return sorted(set(self._own_numbers()).union(*(other.numbers() for other in self._others)))

    def remove(self, unwanted: Callable[[int], bool]) -> None:
        """Forget the blocks whose number is unwanted, those of other numbers of replicas too."""
        for number in filter(unwanted, self._own_numbers()):
            if self.folder is None:
                del self._memory[number]
            else:
                self._path(number).unlink(missing_ok=True)
        for other in self._others:
            other.remove(unwanted)

    def _own_numbers(self) -> list[int]:
        if self.folder is None:
            return list(self._memory)
        return [int(match[1]) for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name))]

    def _path(self, number: int) -> pathlib.Path:
        return self.folder / f"block-{number:012d}.npz"
