"""Name everything in the output folder of a run."""

import errno
import hashlib
import os
import pathlib

import tensorflow as tf

from pic_tf.replicas.devices import is_chief

CHECKPOINTS = "checkpoints"  # folder of the states
EXPORT = "backbone"  # folder of the SavedModel at the end
ROWS = "rows"  # folder of rows on disk
TENSORBOARD = "tensorboard"
NON_FINITE_REPORTS = "nan_reports"
PICTURE = "training.png"
LABEL_CURVE, LABEL_PICTURE = "label_curve.csv", "labels.png"
NEIGHBOURS = "neighbours"  # the beginning of two names
LOCK_FILE = ".lock"
FLAGS_FILE = "flags.txt"
METRICS_FILE = "metrics.csv"
IMAGES_FILE = "images.json"  # identity of the images behind the rows, beside a checkpoint
TEXTS = (FLAGS_FILE, METRICS_FILE, IMAGES_FILE)  # files beside a checkpoint


def resolved(path: str) -> pathlib.Path:
    """Give the path without links and relative parts."""
    return pathlib.Path(path).resolve()


def make_output_folder(output_dir: str, rows_dir: str) -> pathlib.Path:
    """Make the output folder and the folder of rows elsewhere, and check that both are writable.

    Args:
      output_dir: the output folder.
      rows_dir: the folder for rows of several runs; "" where none are elsewhere.

    Returns:
      The folder.

    Raises:
      ValueError: where there cannot be such a folder.
    """
    output = pathlib.Path(output_dir)
    for folder in [rows_folder(output_dir, rows_dir), output] if rows_dir else [output]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise ValueError(
                f"expected a folder to write to at {str(folder)!r}, got {error.strerror}"
            ) from error
    return output


def rows_folder(output_dir: str, rows_dir: str) -> pathlib.Path:
    """Name the folder of rows on disk: in the output folder, or after it in `rows_dir`."""
    if not rows_dir:
        return pathlib.Path(output_dir) / ROWS
    output = resolved(output_dir)
    digest = hashlib.sha256(os.fsencode(output)).hexdigest()[:12]
    return pathlib.Path(rows_dir) / f"{output.name}-{digest}"


def broken_file(strategy: tf.distribute.Strategy) -> str:
    """Name the list of broken images; each worker has its own."""
    if is_chief(strategy):
        return "broken_images.csv"
    return f"broken_images_{strategy.cluster_resolver.task_id}.csv"
