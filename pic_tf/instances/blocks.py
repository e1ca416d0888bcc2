"""Rows that are off the device: blocks in the order of visits, each written once."""

import pathlib
import re
import zipfile

import numpy as np

from pic_tf.replaced_file import replaced

_NAME = re.compile(r"block-(\d{12})\.npz")


class Blocks:
    """Blocks of rows by number, in host memory or as files of a folder.

    A block holds the rows that left the device together, in visiting order. Block j is written when the window leaves
    it and never changes; one sweep over all instances later its rows are read once and are then of no use. A file is
    there as a whole or not at all, and Python's zip format checks its checksum as it is read.

    Args:
      folder: to keep files in; None for host memory.

    Raises:
      OSError: where the folder cannot be made.
    """

    def __init__(self, folder: pathlib.Path | None = None):
        self._folder, self._memory = folder, {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def write(self, number: int, rows: dict[str, np.ndarray]) -> None:
        """Keep a block: arrays [S, ...] by name."""
        if self._folder is None:
            self._memory[number] = rows
            return
        with replaced(self._path(number), "wb", durable=True) as file:
            np.savez(file, **rows)

    def read(self, number: int) -> dict[str, np.ndarray]:
        """The arrays of a block.

        Raises:
          OSError: where it is not there, or is not as it was written.
        """
        if self._folder is None:
            return self._memory[number]
        try:
            with np.load(self._path(number), allow_pickle=False) as file:
                return dict(file)
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise OSError(f"expected a block of rows in {str(self._path(number))!r}, got damage ({error})") from error

    def numbers(self) -> list[int]:
        """Which blocks are there, in ascending order."""
        if self._folder is None:
            return sorted(self._memory)
        return sorted(int(match[1]) for path in self._folder.iterdir() if (match := _NAME.fullmatch(path.name)))

    def remove(self, numbers: list[int]) -> None:
        """Forget blocks."""
        for number in numbers:
            if self._folder is None:
                del self._memory[number]
            else:
                self._path(number).unlink()

    def _path(self, number: int) -> pathlib.Path:
        return self._folder / f"block-{number:012d}.npz"
