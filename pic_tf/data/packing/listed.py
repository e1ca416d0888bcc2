"""Hold a list of files to pack."""

from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

from pic_tf.data.decode import bombs

_LARGEST_FILE = 8 * bombs.MAX_PIXELS  # bytes: the largest image in four channels of 16 bits


class Files(NamedTuple):
    """Files to pack.

    Attributes:
      named: (name, key) of each file, in the order of their ids.
      fetch: from a key to the file's bytes and the name of its class or ""; other processes can
        call it.
      class_names: all possible classes, in the order of their numbers.
    """

    named: list[tuple[str, Any]]
    fetch: Callable[[Any], tuple[BinaryIO, str]]
    class_names: tuple[str, ...]


def check_size(size: int) -> None:
    """Raise ValueError for more bytes than any image has that is read."""
    if size > _LARGEST_FILE:
        raise ValueError(f"expected at most {_LARGEST_FILE:,} bytes, got {size:,}")
