"""Open the rows on disk where a run begins, or goes on from a checkpoint."""

import dataclasses

from pic_tf.instances.paging.convert import fill_blocks, trained_later
from pic_tf.instances.paging.pager import Pager
from pic_tf.instances.paging.segments import RunSegment
from pic_tf.instances.rows import RowSnapshot
from pic_tf.runs.room import check_free
from pic_tf.runs.state import State


def open_pager(pager: Pager, state: State | None, report: bool = True) -> None:
    """Open a pager at a checkpoint, or at the start, with the blocks that go with it.

    Rows of a checkpoint that holds those of all instances are moved to blocks first
    (`move_to_blocks`).

    Args:
      pager: not opened yet.
      state: the checkpoint; None for a new run.
      report: whether to print a line where rows are moved.

    Raises:
      ValueError: for blocks that are not there, for a disk without room.
      OSError: where blocks cannot be written.
    """
    step, segments, visited_before = 0, [], False
    if state:
        step, segments, visited_before = state.step, state.segments, state.visited_before
        if not segments:
            segments, visited_before = move_to_blocks(pager, step, state.rows, report)
    pager.open(step, segments, visited_before)
    if missing := pager.missing():
        number, folder = missing[0]
        raise ValueError(
            f"expected {len(missing):,} more blocks of rows, the first of them number {number}, "
            f"that the checkpoint of step {step:,} needs, got none in {folder!r}: "
            "bring them back, or name the folder of the rows with --rows_dir"
        )
    pager.forget()


def move_to_blocks(
    pager: Pager, step: int, rows: RowSnapshot, report: bool = True
) -> tuple[list[RunSegment], bool]:
    """Move to blocks the rows that a run needs from a step on.

    Args:
      pager: not opened yet.
      step: the next one to take.
      rows: of all instances.
      report: whether to print a line.

    Returns:
      What `Pager.open` takes beside the step: (segments, whether all rows count as visited before).

    Raises:
      ValueError: for a disk without room.
      OSError: where blocks cannot be written.
    """
    visited_before = trained_later(pager.schedules, step, rows.stamp)
    visited = {"visited_before": visited_before}
    schedules = [dataclasses.replace(schedule, **visited) for schedule in pager.own_schedules]
    count = 0
    for schedule, store in zip(schedules, pager.stores):
        needed = schedule.needed(schedule.window_of(step))
        store.begin_anew(step, needed.start)
        count += len(needed) * schedule.stride
    folder = pager.stores[0].folder
    advice = "make room, or name another disk with --rows_dir"
    check_free(count * pager.row_size, folder, "the rows off the device", advice)
    if report and count:
        print(f"moving {count:,} rows to {folder}")
    fill_blocks(rows, step, schedules, pager.stores)
    return pager.segments, visited_before
