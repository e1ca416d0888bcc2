"""Write files as a whole or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def replaced(path: pathlib.Path, mode: str = "w", durable: bool = False, **options) -> Iterator[IO]:
    """Open a file beside `path` to write; it replaces `path` once it is complete.

    Args:
      path: the file to write.
      mode: as of `open`.
      durable: bring the content to the disk before it takes its place, not only on its way there.
      **options: as of `open`.

    Raises:
      OSError: where it cannot be written; the old content of `path` is still there.
    """
    aside = path.with_suffix(".partial")
    with open(aside, mode, **options) as file:
        yield file
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(aside, path)


def sync_folder(directory: pathlib.Path) -> None:
    """Bring the names of a folder's files to the disk too."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
