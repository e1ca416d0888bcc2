"""List the files of a folder, whatever the order of its directory and of links in it."""

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple


class Found(NamedTuple):
    """A file below a folder.

    Attributes:
      path: relative to the folder.
      regular: False for a pipe, a socket or a device, which would hold up a reader for ever. A
        link that leads nowhere counts as regular: reading it says so.
    """

    path: str
    regular: bool


def walk(root: str | os.PathLike) -> Iterator[Found]:
    """List all files that are not hidden, sub-folders included.

    Links to folders are followed, but for two kinds: those to a folder above, and those into `root`
    itself, whose files have a place of their own.

    Args:
      root: the folder.

    Yields:
      The files, sorted within each folder.

    Raises:
      ValueError: for a folder that cannot be read.
    """
    return _walk(os.fspath(root), "", (os.path.realpath(root),))


def _walk(folder: str, inside: str, trail: tuple[str, ...]) -> Iterator[Found]:
    """`trail` are the root and the ends of the links that led to the folder."""
    try:
        with os.scandir(folder) as entries:
            shown = sorted((e for e in entries if not e.name.startswith(".")), key=_name)
    except OSError as error:
        raise ValueError(
            f"expected a readable folder at {error.filename!r}, got {error.strerror}: "
            "change its mode or remove it"
        ) from error
    for entry in shown:
        path = os.path.join(inside, entry.name)
        if not _is_folder(entry):
            yield Found(path, _is_regular(entry))
        elif not entry.is_symlink():
            yield from _walk(entry.path, path, trail)
        elif _leads_elsewhere(target := os.path.realpath(entry.path), folder, trail):
            yield from _walk(entry.path, path, (*trail, target))


def _name(entry: os.DirEntry) -> str:
    return entry.name


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _is_regular(entry: os.DirEntry) -> bool:
    try:
        return entry.is_file() or stat.S_ISREG(os.stat(entry.path).st_mode)
    except OSError:
        return True


def _leads_elsewhere(target: str, folder: str, trail: tuple[str, ...]) -> bool:
    """Tell whether a link's folder is neither above it nor listed at its own place in the root."""
    if any(_is_in(place, target) for place in (os.path.realpath(folder), *trail)):
        return False
    # A name with a dot in front is hidden, or leads out of the root.
    return any(part.startswith(".") for part in os.path.relpath(target, trail[0]).split(os.sep))


def _is_in(path: str, folder: str) -> bool:
    return os.path.join(path, "").startswith(os.path.join(folder, ""))
