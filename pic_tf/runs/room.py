"""Refuse a disk that has too little room."""

import os
import pathlib
import shutil

from pic_tf.runs import checkpoint_files
from pic_tf.runs.run_folder import CHECKPOINTS
from pic_tf.settings.plan import as_text


def check_room(
    output: pathlib.Path, keep: int, size: int, rows: pathlib.Path | None, rows_size: float
) -> None:
    """Refuse a disk without room for the checkpoints of a run, or for its rows.

    Args:
      output: output folder of the run.
      keep: how many checkpoints are kept; one more is written.
      size: bytes of a checkpoint; 0 for none.
      rows: folder of rows on disk; None where all are on the device.
      rows_size: bytes of rows to come there.

    Raises:
      ValueError: where the files will not fit.
    """
    will_go = list(checkpoint_files.states(output / CHECKPOINTS).values())[-keep:] if size else []
    there = sum(file.stat().st_size for path in will_go for file in path.iterdir())
    needed = {output: (keep + 1) * size - there}
    if rows:
        rows.mkdir(parents=True, exist_ok=True)
        same = os.stat(rows).st_dev == os.stat(output).st_dev
        needed[output if same else rows] = rows_size + (needed[output] if same else 0)
    purpose = f"{keep + 1} checkpoints{' and the rows' if rows else ''}"
    advice = "make room, keep fewer (--keep_checkpoints), or use another --output_dir"
    for folder, bytes_to_come in needed.items():
        check_free(bytes_to_come, folder, purpose, advice)


def check_free(size: float, folder: pathlib.Path, purpose: str, advice: str) -> None:
    """Raise an error unless so many bytes are free.

    Args:
      size: bytes that are to be written.
      folder: on the disk in question.
      purpose: of the bytes, in words.
      advice: for where there are too few.

    Raises:
      ValueError: where fewer bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ValueError(
            f"expected {as_text(size)} free in {str(folder)!r} for {purpose}, got {as_text(free)}: "
            f"{advice}"
        )
