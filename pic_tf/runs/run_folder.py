"""Name everything in the output folder of a run."""

import errno
import hashlib
import os
import pathlib

import tensorflow as tf

from pic_tf.replicas.devices import is_chief
from pic_tf.settings.config import Config

CHECKPOINTS, EXPORT = (
    "checkpoints",
    "backbone",
)  # where a run leaves its states, and at its end its export
FLAGS_FILE, METRICS_FILE, PICTURE, LOCK_FILE = "flags.txt", "metrics.csv", "training.png", ".lock"
NON_FINITE_REPORTS, TENSORBOARD, ROWS = "nan_reports", "tensorboard", "rows"
IMAGES_FILE = "images.json"  # beside a checkpoint: which images the rows belong to
TEXTS = (FLAGS_FILE, METRICS_FILE, IMAGES_FILE)  # what is beside a checkpoint


def _resolved(path: str) -> pathlib.Path:
    return pathlib.Path(path).resolve()


def make_output_folder(config: Config) -> pathlib.Path:
    """Make the output folder, and the folder of rows on disk; see that both can be written to.

    Args:
      config: the configuration.

    Returns:
      The folder.

    Raises:
      ValueError: where there cannot be such a folder.
    """
    output = pathlib.Path(config.output_dir)
    for folder in (
        *([rows_folder(config)] if config.instance_store == "disk" and config.rows_dir else []),
        output,
    ):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise ValueError(
                f"expected a folder to write to at {str(folder)!r}, got {error.strerror}"
            ) from error
    return output


def rows_folder(config: Config) -> pathlib.Path:
    """Name the folder of rows on disk: in the output folder, or, in --rows_dir, a folder named
    after it.
    """
    if not config.rows_dir:
        return pathlib.Path(config.output_dir) / ROWS
    output = _resolved(config.output_dir)
    return (
        pathlib.Path(config.rows_dir)
        / f"{output.name}-{hashlib.sha256(os.fsencode(output)).hexdigest()[:12]}"
    )


def broken_file(strategy: tf.distribute.Strategy) -> str:
    """Name the list of broken images; each worker has its own."""
    return (
        "broken_images.csv"
        if is_chief(strategy)
        else f"broken_images_{strategy.cluster_resolver.task_id}.csv"
    )
