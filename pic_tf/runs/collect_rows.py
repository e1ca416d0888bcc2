"""Collect the rows of a run with rows on disk into one checkpoint, of a new run."""

import pathlib

import tensorflow as tf

from pic_tf.instances.first_weights import INITIAL_STDDEV, initial_rows
from pic_tf.instances.paging.convert import fill_tables
from pic_tf.instances.paging.schedule import WindowSchedule
from pic_tf.instances.paging.segments import BlockStore
from pic_tf.runs import checkpoint_files, new_run, run_folder, state
from pic_tf.settings import check, flag_files


def collect(run: str, output: str, rows_dir: str = "") -> pathlib.Path:
    """Write the checkpoint with all rows.

    Args:
      run: output folder of the old run.
      output: of the new one, which is not there yet.
      rows_dir: where the folders of all replicas are; "" for where the run has put them.

    Returns:
      The folder of the checkpoint.

    Raises:
      ValueError: where the run has no such checkpoint, or blocks are missing.
      OSError: where a block cannot be read, or the checkpoint not be written.
    """
    found, _ = checkpoint_files.newest(pathlib.Path(run) / run_folder.CHECKPOINTS)
    if found is None or not checkpoint_files.has_table(found, state.INSTANCES):
        raise ValueError(
            f"expected a run with --instance_store=disk and a checkpoint at {run!r}, got none: "
            "checkpoints of other runs hold all rows already"
        )
    config = flag_files.from_flagfile(str(found / run_folder.FLAGS_FILE))
    check.check(config)
    folder = run_folder.rows_folder(config.output_dir, config.rows_dir)
    folder = pathlib.Path(rows_dir) if rows_dir else folder
    old = state.read_state(found)
    variables, rows, step, segments = old.variables, old.rows, old.step, old.segments
    orders = config.sliding_windows(segments[-1].replicas)
    visited = old.visited_before
    schedules = [WindowSchedule(order, config.num_negatives, visited) for order in orders]
    stores = [BlockStore(order, folder) for order in orders]
    dim, window = rows.weights.shape[1], schedules[0].window_of(step)
    missing = []
    for schedule, store in zip(schedules, stores):
        store.segments = segments
        missing += store.missing(schedule.needed(window))
    if missing:
        number, where = min(missing)
        raise ValueError(
            f"expected the blocks that step {step:,} needs, of all replicas, in {str(folder)!r}, "
            f"got {len(missing):,} too few, such as number {number} in {where!r}: "
            "name the folder of the rows with --rows_dir"
        )
    del variables[state.VISITED_BEFORE], variables[state.SEGMENTS]

    def first_weights(ids: tf.Tensor) -> tf.Tensor:
        return initial_rows(ids, dim, INITIAL_STDDEV, config.seed)

    texts = {name: checkpoint_files.read_text(found, name) for name in run_folder.TEXTS}
    with new_run.new_tables(output, config, dim) as tables:
        fill_tables(tables, rows, schedules, stores, window, first_weights, "blocks")
        return new_run.write(output, step, variables, tables | {"ring": rows.ring}, texts)
