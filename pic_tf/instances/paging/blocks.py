"""Rows that are off the device: blocks in the order of visits, each written once."""

import os
import pathlib
import re
from collections.abc import Callable

import numpy as np

from pic_tf.files.replaced import replaced, sync_folder

TABLES = ("weights", "momentum", "stamp")
_NAME = re.compile(r"block-(\d{12}|-\d{11})\.npz")


def table_types(dim: int) -> dict[str, tuple[list[int], type]]:
    """Give (shape of a row, dtype) by table, for embeddings of size `dim`."""
    return {
        "weights": ([dim], np.float32),
        "momentum": ([dim], np.float32),
        "stamp": ([], np.int64),
    }


class Blocks:
    """Blocks of rows by number, files of a folder.

    A block holds the rows that left the device together, in visiting order. Block j is written when
    the window leaves it and never changes; one sweep over all instances later its rows are read
    once and are then of no use. A file is there as a whole or not at all, and Python's zip format
    checks its checksum as it is read.

    Args:
      folder: of the files, also an attribute.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def write(self, number: int, rows: dict[str, np.ndarray]) -> None:
        """Write a block.

        Args:
          number: of the block.
          rows: arrays [S, ...] by table.

        Raises:
          OSError: where it cannot be written; it names the file.
        """
        path = self._path(number)
        try:
            with replaced(path, "wb", durable=True) as file:
                np.savez(file, **rows)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error

    def read(self, number: int) -> dict[str, np.ndarray]:
        """Read the arrays of a block, by table.

        Raises:
          ValueError: where it is not there, or is not as it was written.
        """
        path = self._path(number)
        try:
            with np.load(path, allow_pickle=False) as file:
                rows = dict(file)
            if set(rows) != set(TABLES):
                raise ValueError(f"tables {sorted(rows)}")
            return rows
        except Exception as error:  # zipfile and numpy raise many kinds for a damaged file
            raise ValueError(
                f"expected a block of rows in {str(path)!r}, got none that can be read ({error}): "
                "bring it back from a copy, or begin anew with another --output_dir"
            ) from error

    def sync(self) -> None:
        """Bring the names of the files to the disk too."""
        sync_folder(self.folder)

    def has(self, number: int) -> bool:
        """Tell whether a block is there."""
        return self._path(number).exists()

    def numbers(self) -> list[int]:
        """List the blocks that are there, in ascending order."""
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        return sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))

    def remove(self, unwanted: Callable[[int], bool]) -> None:
        """Delete the blocks whose number is unwanted."""
        for number in filter(unwanted, self.numbers()):
            self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> pathlib.Path:
        return self.folder / f"block-{number:012d}.npz"
