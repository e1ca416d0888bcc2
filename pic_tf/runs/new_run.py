"""Write the first checkpoint of a new run.

Its rows are made on disk, so memory does not limit their number.
"""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator

import numpy as np

from pic_tf.files.lock import exclusive
from pic_tf.files.replaced import replaced
from pic_tf.instances.paging.blocks import table_types
from pic_tf.runs import checkpoint_files, run_folder
from pic_tf.runs.room import check_free
from pic_tf.settings import quantities
from pic_tf.settings.config import Config


@contextlib.contextmanager
def new_tables(output: str, config: Config, dim: int) -> Iterator[dict[str, np.ndarray]]:
    """Make tables for the rows of all instances, mapped from files that are deleted at the end.

    Args:
      output: folder of the new run, which is not there yet.
      config: of the new run.
      dim: D.

    Yields:
      weights and momentum float32 [N, D], stamp int64 [N]; zeros.

    Raises:
      ValueError: for a folder with anything in it but the remains of a try that was cut off, or
        for too little room.
      OSError: where it cannot be made.
    """
    folder = pathlib.Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / run_folder.LOCK_FILE):
        scratch = _empty(folder, output)
        size = 2 * quantities.rows_off_device(config)
        check_free(size, folder, "two copies of all rows", "make room, or name another")
        scratch.mkdir()
        try:
            tables = {}
            for name, (shape, dtype) in table_types(dim).items():
                path, shape = scratch / f"{name}.npy", (config.num_instances, *shape)
                tables[name] = np.lib.format.open_memmap(path, "w+", dtype, shape)
            yield tables
        finally:
            shutil.rmtree(scratch, ignore_errors=True)  # a network's disk may keep what is mapped


def _empty(folder: pathlib.Path, output: str) -> pathlib.Path:
    """Remove the remains of a try that was cut off; refuse anything else. Name the scratch."""
    there = {path.name for path in folder.iterdir()}
    scratch, checkpoints = folder / "rows.partial", folder / run_folder.CHECKPOINTS
    remains = {scratch.name, checkpoints.name}
    known = remains | {run_folder.FLAGS_FILE, run_folder.LOCK_FILE}
    if there - known or checkpoint_files.states(checkpoints):
        raise ValueError(
            f"expected a new folder as --output, got {output!r}, in which something is: "
            "name another"
        )
    for name in there & remains:
        shutil.rmtree(folder / name)
    return scratch


def write(
    output: str,
    step: int,
    variables: dict[str, np.ndarray],
    tables: dict[str, np.ndarray],
    texts: dict[str, str],
) -> pathlib.Path:
    """Write the checkpoint, and the flags that training goes on with.

    Args:
      output: folder of the new run.
      step: of the checkpoint.
      variables: all but the rows.
      tables: rows and ring.
      texts: files beside a checkpoint, by name.

    Returns:
      Its folder.

    Raises:
      OSError: where it cannot be written.
    """
    folder = pathlib.Path(output)
    with replaced(folder / run_folder.FLAGS_FILE) as file:
        file.write(texts[run_folder.FLAGS_FILE])
    checkpoints = folder / run_folder.CHECKPOINTS
    return checkpoint_files.write_checkpoint(checkpoints, step, variables, tables, texts)
