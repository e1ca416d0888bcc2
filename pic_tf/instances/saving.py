"""Refuse files that would not bring rows, step and history back."""

import inspect
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras as keras


def check_shapes(values: list[np.ndarray], variables: list[tf.Variable]) -> None:
    """Check that arrays are those of some variables.

    Raises:
      ValueError: for another number of arrays, or an array of another shape.
    """
    expected, got = ([tuple(x.shape) for x in several] for several in (variables, values))
    if expected != got:
        other = next((i for i, pair in enumerate(zip(expected, got)) if pair[0] != pair[1]), None)
        where = "" if other is None else f", array {other} of shape {got[other]}"
        raise ValueError(
            f"expected the {len(expected)} arrays of this model and its optimizers, got "
            f"{len(got)}{where}: build and compile the model as it was saved, with the same "
            "max_updates"
        )


def check_weights_file(path: str, save_format: str | None = None) -> None:
    """Check that a file of weights holds step and history.

    Raises:
      ValueError: for Keras' old HDF5 format.
    """
    old = str(path).endswith((".h5", ".hdf5", ".keras")) or save_format in ("h5", "hdf5")
    if old and not str(path).endswith(".weights.h5"):
        raise ValueError(
            f"expected a name that ends in .weights.h5, or a TensorFlow checkpoint, got "
            f"{str(path)!r}: the old HDF5 format leaves out the history that resting rows need"
        )


def check_model_file(path: str, save_format: str | None = None) -> None:
    """Check that a file of a whole model holds step and history.

    Raises:
      ValueError: for another format than .keras.
    """
    if not str(path).endswith(".keras") or save_format not in (None, "keras", "keras_v3"):
        raise ValueError(
            f"expected a name that ends in .keras for the whole model, got {str(path)!r}: a "
            "SavedModel would lose the history that resting rows need; pic_tf.export_backbone "
            "makes one of the backbone"
        )


def check_registered(augment: Callable) -> None:
    """Check that a loaded model could find a function again.

    Raises:
      ValueError: for a lambda, and for a function or class that is not registered.
    """
    kind = augment if inspect.isfunction(augment) else type(augment)
    if keras.saving.get_registered_name(kind) == kind.__name__:
        raise ValueError(
            f"expected a registered augment to save the whole model, got {kind.__name__}: put "
            "@keras.saving.register_keras_serializable() on it, or save with save_weights"
        )
