"""Files of runs and pictures, changed and read."""

import csv
import pathlib

import numpy as np

from pic_tf.runs import checkpoint_files


def with_rows(run_dir, folder, change) -> str:
    """A run like another one, whose newest checkpoint has rows that were changed."""
    path, _ = checkpoint_files.newest(pathlib.Path(run_dir) / "checkpoints")
    tables = {
        name: np.array(checkpoint_files.read_table(path, name))
        for name in ("weights", "momentum", "stamp", "ring")
    }
    change(tables)
    texts = {
        name: checkpoint_files.read_text(path, name)
        for name in ("flags.txt", "images.json", "metrics.csv")
    }
    checkpoint_files.write_checkpoint(
        folder / "checkpoints",
        checkpoint_files.step_of(path),
        checkpoint_files.read_variables(path),
        tables,
        texts,
    )
    return str(folder)


def lines_of(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
