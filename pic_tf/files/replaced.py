"""Write files and folders as a whole or not at all, also where several processes write at once."""

import contextlib
import errno
import os
import pathlib
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from typing import IO

PARTIAL = ".partial"  # ending of what is not complete
DAY = 86400.0  # seconds
_OURS = re.compile(r"\.[0-9a-f]{12}\.partial$")
_MOST_BYTES = 200  # of a name; file systems allow 255, and an ending is added


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
    with aside(path) as own, open(own, mode, **options) as file:
        yield file
        if durable:
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def aside(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a new name beside `path`; the file or folder written there replaces `path` in the end.

    Each call gives another name, so that several writers do not meet; the last one to end wins.

    Args:
      path: the file or folder to write.

    Raises:
      OSError: where it cannot take its place; the old content of `path` is still there.
    """
    own = beside(path)
    try:
        yield own
        if own.is_dir():
            _replace_folder(own, path)
        else:
            os.replace(own, path)
    except BaseException:
        _remove(own)
        raise


def beside(path: pathlib.Path) -> pathlib.Path:
    """Name what is to replace `path` once it is complete; no two calls give the same name."""
    name = os.fsdecode(os.fsencode(path.name)[:_MOST_BYTES])
    return path.with_name(f"{name}.{secrets.token_hex(6)}{PARTIAL}")


def _replace_folder(new: pathlib.Path, path: pathlib.Path) -> None:
    # Moved out of the way as a whole: a folder that is half deleted would be nobody's.
    old = beside(path)
    while True:
        with contextlib.suppress(FileNotFoundError):
            path.rename(old)
        try:
            new.rename(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                with contextlib.suppress(OSError):
                    old.rename(path)
                raise
            _remove(old)  # another writer was quicker, and what it wrote is as good
            continue
        _remove(old)
        return


def remove_partial(folder: pathlib.Path, older_than: float = DAY) -> None:
    """Delete what processes that were killed in the middle have left in a folder.

    Args:
      folder: the folder, which may be missing.
      older_than: seconds since the last change, 0 where nobody else can be writing.
    """
    names = os.listdir(folder) if folder.is_dir() else []
    for path in (folder / name for name in names if _OURS.search(name)):
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime >= older_than:
                _remove(path)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync_folder(directory: pathlib.Path) -> None:
    """Bring the names of a folder's files to the disk too."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
