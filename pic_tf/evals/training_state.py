"""Save the state of an evaluation's training in a file, and go on from it."""

import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pic_tf.files.replaced import replaced


def save_state(
    path: pathlib.Path, settings: str, variables: Sequence[tf.Variable], **beside: np.ndarray | int
) -> None:
    """Write variables, and numbers beside them, in place of the file before.

    Args:
      path: the file.
      settings: text of the settings that the state belongs to.
      variables: all that decides how the training goes on.
      **beside: numbers by name.

    Raises:
      OSError: where it cannot be written; the state before is still there.
    """
    arrays = {f"array{i}": variable.numpy() for i, variable in enumerate(variables)}
    with replaced(path, "wb") as file:
        np.savez(file, settings=settings, **beside, **arrays)


def restore_state(
    path: pathlib.Path, settings: str, variables: Sequence[tf.Variable]
) -> dict[str, np.ndarray] | None:
    """Bring variables back from a file, if it holds a state of these settings.

    Args:
      path: the file.
      settings: as of `save_state`.
      variables: as of `save_state`.

    Returns:
      The numbers beside them by name; None where there is no state to go on from.

    Raises:
      ValueError: for a file that cannot be read.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["settings"]) != settings:
                return None
            arrays = {name: file[name] for name in file.files}
            values = [arrays.pop(f"array{i}") for i in range(len(variables))]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"expected the state of an interrupted evaluation in {str(path)!r}, got a file that "
            f"cannot be read ({type(error).__name__}): remove it to begin anew"
        ) from error
    for variable, value in zip(variables, values):
        variable.assign(value)
    return arrays
