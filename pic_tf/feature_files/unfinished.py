"""Keep the features computed so far on disk, so that the same command goes on after a kill."""

import json
import pathlib
import time
from typing import Any

import numpy as np

from pic_tf.files.mapped import new_array
from pic_tf.files.replaced import replaced

_SAVE_EVERY = 20.0  # seconds
_PROGRESS = "progress.json"


def is_unfinished(output: pathlib.Path) -> bool:
    """Tell whether there are rows to go on from."""
    return (folder_of(output) / _PROGRESS).exists()


def folder_of(output: pathlib.Path) -> pathlib.Path:
    """Name the folder of the rows on their way to a feature file."""
    return output.with_name(f"{output.name}.unfinished")


class Unfinished:
    """Rows of features on their way to a feature file.

    Args:
      folder: folder for them, which is there; the caller holds it alone.
      key: all that the features depend on; remains of another key are deleted.
      count: N, rows in all.

    Attributes:
      folder: the folder.
      rows: float32 [N, C] mapped from a file; None before the first rows.
      done: rows that are there.
    """

    def __init__(self, folder: pathlib.Path, key: dict[str, Any], count: int):
        self.folder, self._key, self._count = folder, key, count
        self.rows: np.ndarray | None = None
        self.done, self._saved = 0, time.monotonic()
        try:
            progress = json.loads((folder / _PROGRESS).read_text())
            if progress["key"] == json.loads(json.dumps(key)):
                self.rows = np.load(self.file, mmap_mode="r+", allow_pickle=False)
                self.done = progress["done"]
        except (OSError, ValueError, KeyError):
            pass  # nothing to go on from
        if self.rows is None:
            for file in (folder / _PROGRESS, self.file, *folder.glob("*.csv")):
                file.unlink(missing_ok=True)

    @property
    def file(self) -> pathlib.Path:
        """The file of the rows, an .npy file."""
        return self.folder / "rows.npy"

    def append(self, rows: np.ndarray) -> None:
        """Write further rows, float32 [b, C].

        Raises:
          OSError: for a disk without room for all rows.
        """
        if self.rows is None:
            self.rows = new_array(self.file, (self._count, rows.shape[1]))
        self.rows[self.done : self.done + len(rows)] = rows
        self.done += len(rows)

    def let_go(self) -> None:
        """Close the file of the rows, which are in the feature file."""
        self.rows = None

    def due(self) -> bool:
        """Tell whether it is time to save."""
        return time.monotonic() - self._saved >= _SAVE_EVERY

    def save(self) -> None:
        """Bring all rows to the disk, and then their number.

        Raises:
          OSError: where they cannot be written.
        """
        if self.rows is not None:
            self.rows.flush()
            with replaced(self.folder / _PROGRESS, durable=True) as file:
                json.dump({"key": self._key, "done": self.done}, file)
        self._saved = time.monotonic()
