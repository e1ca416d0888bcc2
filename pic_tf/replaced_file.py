"""Files that are there as a whole or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def replaced(path: pathlib.Path, mode: str = "w", **options) -> Iterator[IO]:
    """Open a file beside `path`, which takes its place once it is complete.

    Args:
      path: the file to write.
      mode: as of `open`.
      **options: as of `open`.

    Raises:
      OSError: where it cannot be written; what was at `path` is still there.
    """
    aside = path.with_suffix(".partial")
    with open(aside, mode, **options) as file:
        yield file
    os.replace(aside, path)
