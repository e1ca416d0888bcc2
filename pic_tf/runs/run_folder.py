"""Name everything in the output folder of a run."""

import errno
import hashlib
import os
import pathlib

import tensorflow as tf

from pic_tf.replicas.devices import is_chief
from pic_tf.settings.config import Config

CHECKPOINTS, EXPORT = "checkpoints", "backbone"  # where a run leaves its states, and at its end its export
FLAGS_FILE, METRICS_FILE, PICTURE, LOCK_FILE = "flags.txt", "metrics.csv", "training.png", ".lock"
NAN_REPORTS = "nan_reports"
IMAGES_FILE = "images.json"  # beside a checkpoint: which images the rows belong to
TEXTS = (FLAGS_FILE, METRICS_FILE, IMAGES_FILE)  # what is beside a checkpoint


def _resolved(path: str) -> pathlib.Path:
    return pathlib.Path(path).resolve()


def make_output_folder(config: Config) -> pathlib.Path:
    """Make the folder for what a run leaves, and that for rows on disk, and see that they can be written to.

    Args:
      config: the configuration.

    Returns:
      The folder.

    Raises:
      ValueError: where there cannot be such a folder.
    """
    output = pathlib.Path(config.output_dir)
    for folder in (*([rows_folder(config)] if config.instance_store == "disk" and config.rows_dir else []), output):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise ValueError(f"expected a folder to write to at {str(folder)!r}, got {error.strerror}") from error
    return output


def rows_folder(config: Config) -> pathlib.Path:
    """Where rows on disk are: in the output folder, or, in --rows_dir, in a folder named after it."""
    if not config.rows_dir:
        return pathlib.Path(config.output_dir) / "rows"
    output = _resolved(config.output_dir)
    return pathlib.Path(config.rows_dir) / f"{output.name}-{hashlib.sha256(os.fsencode(output)).hexdigest()[:12]}"


def _broken_file(strategy: tf.distribute.Strategy) -> str:
    """Each worker lists the broken images that it meets."""
    return "broken_images.csv" if is_chief(strategy) else f"broken_images_{strategy.cluster_resolver.task_id}.csv"
