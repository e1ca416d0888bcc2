"""Open the rows on disk where a run begins, or goes on from a checkpoint."""

import dataclasses

import numpy as np

from pic_tf.instances.paging.convert import fill_blocks, trained_later
from pic_tf.instances.paging.pager import Pager
from pic_tf.instances.paging.schedule import WindowSchedule
from pic_tf.instances.rows import RowSnapshot, ids_here
from pic_tf.runs.room import check_free
from pic_tf.runs.state import VISITED_BEFORE, State, of_this_model, segments_of


def open_pager(pager: Pager, state: State | None, report: bool = True) -> None:
    """Open a pager at a checkpoint, or at the start, with the blocks that go with it.

    Rows of a checkpoint that holds those of all instances are moved to blocks first
    (`move_to_blocks`).

    Args:
      pager: not opened yet.
      state: the checkpoint; None for a new run.
      report: whether to print a line where rows are moved.

    Raises:
      ValueError: for rows of other windows, for blocks that are not there, for a disk without room.
      OSError: where blocks cannot be written.
    """
    if state is None:
        pager.open(0)
    elif state.rows.instance_ids is None:
        move_to_blocks(pager, state.step, state.rows, report)
    else:
        visited_before = bool(state.variables[VISITED_BEFORE])
        _check_windows(pager, state, visited_before)
        pager.open(state.step, segments_of(state.variables), visited_before)
        _check_blocks(pager, state.step)
    pager.forget()


def move_to_blocks(pager: Pager, step: int, rows: RowSnapshot, report: bool = True) -> None:
    """Move to blocks the rows that a run needs from a step on, and open the pager there.

    Args:
      pager: not opened yet.
      step: the next one to take.
      rows: of all instances.
      report: whether to print a line.

    Raises:
      ValueError: for a disk without room.
      OSError: where blocks cannot be written.
    """
    visited_before = trained_later(pager.schedules, step, rows.stamp)
    own_schedules = _visited(pager.own_schedules, visited_before)
    count = 0
    for schedule, store in zip(own_schedules, pager.stores):
        needed = schedule.needed(schedule.window_of(step))
        store.begin_anew(step, needed.start)
        count += len(needed) * schedule.stride
    folder = pager.stores[0].folder
    advice = "make room, or name another disk with --rows_dir"
    check_free(count * pager.row_size, folder, "the rows off the device", advice)
    if report and count:
        print(f"moving {count:,} rows to {folder}")
    fill_blocks(rows, step, own_schedules, pager.stores)
    pager.open(step, pager.segments, visited_before)


def _check_blocks(pager: Pager, step: int) -> None:
    """Refuse to go on where blocks are missing."""
    if missing := pager.missing():
        number, folder = missing[0]
        raise ValueError(
            f"expected {len(missing):,} more blocks of rows, the first of them number {number}, "
            f"that the checkpoint of step {step:,} needs, got none in {folder!r}: "
            "bring them back, or name the folder of the rows with --rows_dir"
        )


def _check_windows(pager: Pager, state: State, visited_before: bool) -> None:
    """Refuse rows that are not those of the pager's windows."""
    schedules = _visited(pager.schedules, visited_before)
    here = [schedule.rows_here(schedule.window_of(state.step)) for schedule in schedules]
    with of_this_model(state.path):
        if not np.array_equal(ids_here(here), state.rows.instance_ids):
            raise ValueError(
                f"its rows are those of other windows than {len(here)} replicas and these flags "
                "have: tools/collect_rows.py brings all rows into one checkpoint"
            )


def _visited(schedules: list[WindowSchedule], visited_before: bool) -> list[WindowSchedule]:
    """Set in schedules whether all rows count as visited before the first window."""
    return [dataclasses.replace(each, visited_before=visited_before) for each in schedules]
