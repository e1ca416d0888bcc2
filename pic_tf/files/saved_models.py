"""Load SavedModels from any folder."""

import os
import pathlib
import tempfile
from typing import Any

import tensorflow as tf

_OF_PATTERNS = frozenset("*?[]\\")


def load(folder: str | os.PathLike) -> Any:
    """Load a SavedModel.

    TensorFlow takes the path of its variables for a pattern of names, which no folder `run [1]`
    fits: such a folder gets a plain name for the while.

    Args:
      folder: the SavedModel.

    Returns:
      As of `tf.saved_model.load`.
    """
    if not _OF_PATTERNS & set(os.fspath(folder)):
        return tf.saved_model.load(os.fspath(folder))
    with tempfile.TemporaryDirectory() as place:
        link = pathlib.Path(place, "model")
        link.symlink_to(os.path.abspath(folder))
        return tf.saved_model.load(str(link))
