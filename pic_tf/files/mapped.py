"""Make arrays that are mapped from files, in room that is theirs."""

import os
import pathlib

import numpy as np


def new_array(path: pathlib.Path, shape: tuple[int, ...]) -> np.ndarray:
    """Make an .npy file of float32 zeros, and map it to write.

    Args:
      path: the file; an older one is replaced.
      shape: of the array.

    Returns:
      The array.

    Raises:
      OSError: for a disk without room for all of it.
    """
    array = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    with open(path, "r+b") as file:
        reserve(file.fileno())
    return array


def reserve(descriptor: int) -> None:
    """Give a file all the room that its length promises.

    A disk that is full shows now, as an error; a write to what is mapped would end the process by a
    signal.

    Args:
      descriptor: of a file that is open to write.

    Raises:
      OSError: where there is too little.
    """
    if hasattr(os, "posix_fallocate"):  # macOS has none
        os.posix_fallocate(descriptor, 0, os.fstat(descriptor).st_size)
