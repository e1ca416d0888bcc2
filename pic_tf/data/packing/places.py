"""Read files of this machine and of buckets (gs://, s3:// and others) in one way, by fsspec."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import fsspec

_EXTRAS = {"gs": ".[gcs]", "gcs": ".[gcs]", "s3": ".[s3]"}  # what else an address needs


def is_address(source: str) -> bool:
    """Tell the address of a bucket or server from a path of this machine."""
    return "://" in source and not os.path.exists(source)


def open_place(source: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Find the file system of an address or a path, and the path in it.

    Args:
      source: such as "gs://bucket/folder", or a path of this machine.

    Raises:
      ValueError: for an address of an unknown kind, or one that needs a package.
    """
    if not is_address(source):
        return fsspec.filesystem("file"), os.path.abspath(source)
    kind = source.split("://")[0]
    with reported(source):
        try:
            return fsspec.core.url_to_fs(source)
        except ImportError as error:
            package = _EXTRAS.get(kind, error.name or "the package of this address")
            raise ValueError(
                f"expected a package for {kind}://, got none: pip install {package!r}"
            ) from error


@contextmanager
def reported(source: str) -> Iterator[None]:
    """Turn whatever the client of a bucket raises into one sentence."""
    try:
        yield
    except Exception as error:  # each client has kinds of its own
        if isinstance(error, ValueError) and str(error).startswith("expected"):
            raise
        reason, *_ = str(error).splitlines() or [""]
        raise ValueError(
            f"expected readable files at {source!r}, got {type(error).__name__} ({reason}): check "
            "the address and the credentials of this machine"
        ) from error


def read(files: fsspec.AbstractFileSystem, path: str, start: int, size: int) -> bytes:
    """Read a piece of a file.

    Args:
      files: file system.
      path: the file in it.
      start: first byte.
      size: number of bytes.

    Raises:
      ValueError: where the file ends before.
      FileNotFoundError: where it is gone.
      OSError: with a number, where it cannot be read.
    """
    try:
        content = files.cat_file(path, start=start, end=start + size)
    except FileNotFoundError:
        raise
    except Exception as error:  # of the network, which must not pass for one of an image
        if isinstance(error, OSError) and error.errno:
            raise
        raise OSError(errno.EIO, f"{type(error).__name__} ({error})") from error
    if len(content) != size:
        raise ValueError(f"cut off after {len(content):,} of {size:,} bytes")
    return content
