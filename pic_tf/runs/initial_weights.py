"""Identify the weights that a run starts from."""

import dataclasses
import hashlib
import os
import pathlib

from pic_tf.models.named import PUBLISHED
from pic_tf.runs.checkpoint_files import sha256_of
from pic_tf.runs.run_folder import EXPORT
from pic_tf.settings.config import Config

GRAPH = "saved_model.pb"  # of a SavedModel


def place_of(path: str | os.PathLike) -> pathlib.Path:
    """Name the SavedModel in the folder of a finished run; give anything else back."""
    folder = pathlib.Path(path)
    in_run = not (folder / GRAPH).is_file() and (folder / EXPORT / GRAPH).is_file()
    return folder / EXPORT if in_run else folder


def fingerprint(path: pathlib.Path) -> str:
    """Hash a file of weights, or the graph and the weights of a SavedModel.

    Raises:
      OSError: where it cannot be read.
    """
    if not path.is_dir():
        return sha256_of(path)
    files = (path / GRAPH, *sorted((path / "variables").iterdir()))
    return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()


def with_fingerprint(config: Config) -> Config:
    """Fill in the hash of the initial weights.

    Args:
      config: a configuration that names some.

    Returns:
      The configuration, with `initial_weights_sha256`.

    Raises:
      ValueError: where they cannot be read, or are others than the configuration says.
    """
    path = config.initial_weights
    if path in PUBLISHED:
        return config  # of one name there is one file, which Keras checks
    try:
        found = fingerprint(place_of(path))
    except OSError as error:
        raise ValueError(
            f"expected weights at --initial_weights={path!r}, got {error.strerror}: check the path"
        ) from error
    if config.initial_weights_sha256 not in ("", found):
        raise ValueError(
            f"expected the weights with SHA-256 {config.initial_weights_sha256} in {path!r}, got "
            f"{found}: bring the others back, or leave --initial_weights_sha256 out"
        )
    return dataclasses.replace(config, initial_weights_sha256=found)
