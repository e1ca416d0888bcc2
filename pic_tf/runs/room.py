"""Refuse a disk that has too little room."""

import pathlib
import shutil

from pic_tf.settings.plan import as_text


def check_free(size: float, folder: pathlib.Path, purpose: str, advice: str) -> None:
    """Raise an error unless so many bytes are free.

    Args:
      size: bytes that are to be written.
      folder: on the disk in question.
      purpose: of the bytes, in words.
      advice: for where there are too few.

    Raises:
      ValueError: where fewer bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ValueError(
            f"expected {as_text(size)} free in {str(folder)!r} for {purpose}, got {as_text(free)}: "
            f"{advice}"
        )
