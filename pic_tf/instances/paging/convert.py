"""Move the rows of all instances into blocks, and out of blocks into tables."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from pic_tf.files.progress import drawing_interval
from pic_tf.instances.paging.blocks import TABLES
from pic_tf.instances.paging.schedule import WindowSchedule
from pic_tf.instances.paging.segments import BlockStore
from pic_tf.instances.rows import RowSnapshot

_PART = 65536  # rows that are checked, or drawn, at once


def trained_later(schedules: list[WindowSchedule], step: int, stamp: np.ndarray) -> bool:
    """Tell whether an order of visits comes to trained rows for the first time after a step.

    Such rows were trained in another order; this one then counts as if it had visited all rows once
    before (`WindowSchedule.visited_before`).

    Args:
      schedules: of every replica.
      step: the next one to take.
      stamp: int64 [N], updates applied when each row was left, 0 where it was never visited.

    Returns:
      True where there is such a row.
    """
    for schedule in schedules:
        later = schedule.to_come(schedule.window_of(step))
        parts = (later[first : first + _PART] for first in range(0, len(later), _PART))
        if any(np.any(stamp[schedule.first_time(part)]) for part in parts):
            return True
    return False


def fill_blocks(
    rows: RowSnapshot, step: int, schedules: list[WindowSchedule], stores: list[BlockStore]
) -> None:
    """Write the blocks that a run at a step needs.

    Args:
      rows: of all instances.
      step: the next one to take.
      schedules: of some replicas.
      stores: of each of them, begun at this step.

    Raises:
      OSError: where one cannot be written.
    """
    for schedule, store in zip(schedules, stores):
        for number in schedule.needed(schedule.window_of(step)):
            ids = schedule.of_block(number)
            store.write(number, {name: np.array(getattr(rows, name)[ids]) for name in TABLES})


def fill_tables(
    tables: dict[str, np.ndarray],
    rows: RowSnapshot,
    schedules: list[WindowSchedule],
    stores: list[BlockStore],
    window: int,
    first_weights: Callable[[tf.Tensor], tf.Tensor],
    progress: str = "",
) -> None:
    """Collect the rows of all instances in tables.

    Args:
      tables: weights, momentum and stamp, [N, ...], zeros; may be mapped from files.
      rows: those on the devices.
      schedules: of every replica.
      stores: of every replica.
      window: the rows are those at its beginning.
      first_weights: a function from instances int64 [b] to float32 [b, D].
      progress: name of a progress bar; "" for none.

    Raises:
      ValueError: for a block that cannot be read.
    """
    total = sum(len(schedule.needed(window)) for schedule in schedules)
    shown = {"desc": progress, "disable": not progress, "mininterval": drawing_interval()}
    with tqdm(total=total, unit="block", **shown) as bar:
        for schedule, store in zip(schedules, stores):
            for number in schedule.needed(window):  # in this order: later blocks are newer
                block, ids = store.read(number), schedule.of_block(number)
                for name, table in tables.items():
                    table[ids] = block[name]
                bar.update()
    for name, table in tables.items():
        table[rows.instance_ids] = getattr(rows, name)
    fill_untouched(tables, first_weights)


def fill_untouched(
    tables: dict[str, np.ndarray], first_weights: Callable[[tf.Tensor], tf.Tensor]
) -> None:
    """Give the rows of stamp 0 their first weights.

    Args:
      tables: weights and stamp, [N, ...]; may be mapped from files.
      first_weights: a function from instances int64 [b] to float32 [b, D].
    """
    never = np.flatnonzero(np.asarray(tables["stamp"]) == 0)
    for first in range(0, len(never), _PART):
        ids = never[first : first + _PART]
        tables["weights"][ids] = first_weights(tf.constant(ids))
