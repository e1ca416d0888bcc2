"""Find images that two data sets have in common."""

import functools
import os
from collections.abc import Iterator

from pic_tf.data.sources.folder import FolderSource
from pic_tf.data.sources.joined import parts_of
from pic_tf.data.sources.source import Source


def in_both(first: Source, second: Source) -> list[str]:
    """List what is in both of two data sets: files by their place, others as a whole.

    Args:
      first: images.
      second: images, of which one place a file is in memory.

    Returns:
      Files that are in both, and names of the parts of `second` that are one of `first`.
    """
    found = []
    for one in parts_of(first):
        for other in parts_of(second):
            if isinstance(one, FolderSource) and isinstance(other, FolderSource):
                if _one_in_the_other(one.folder, other.folder):
                    names = set(map(os.path.basename, other.paths))  # few of many others
                    found += sorted(set(_files(other, names)).intersection(_files(one, names)))
            elif _are_one(one, other):
                found.append(other.name)
    return found


def _are_one(one: Source, other: Source) -> bool:
    """Tell whether two sources hold the same; only of equal lengths are pixels hashed for it."""
    alike = type(one) is type(other) and len(one) == len(other)
    return alike and one.fingerprint() == other.fingerprint()


def _one_in_the_other(first: str, second: str) -> bool:
    """Tell whether one folder lies in the other or is it; "" of a table, whose files lie anywhere.

    Links below a folder lead elsewhere, and are not followed here.
    """
    if not first or not second:
        return True
    one, other = (os.path.realpath(folder) + os.sep for folder in (first, second))
    return one.startswith(other) or other.startswith(one)


def _files(source: FolderSource, names: set[str]) -> Iterator[str]:
    """Give the place of each file of such a name, whatever links lead to its folder."""
    place_of = functools.cache(os.path.realpath)
    for path in source.paths:
        folder, name = os.path.split(path)
        if name in names:
            yield os.path.join(place_of(os.path.join(source.folder, folder)), name)
