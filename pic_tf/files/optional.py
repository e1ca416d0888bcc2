"""Go on where a log file cannot be written."""

import contextlib
import pathlib
import sys
from collections.abc import Iterator

import tensorflow as tf
from tqdm import tqdm


@contextlib.contextmanager
def going_on_without(path: pathlib.Path) -> Iterator[None]:
    """Go on if a log cannot be written: a full disk is no reason to end weeks of training."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        tqdm.write(
            f"{path} not written ({str(error).splitlines()[0]}); training goes on", file=sys.stderr
        )
