"""Bring rows to the device as the sliding window needs them, and take them away behind it."""

import dataclasses
import sys
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from pic_tf.instances.classifier import InstanceClassifier
from pic_tf.instances.paging.blocks import TABLES, table_types
from pic_tf.instances.paging.io_thread import IOThread
from pic_tf.instances.paging.schedule import WindowSchedule
from pic_tf.instances.paging.segments import BlockStore, RunSegment
from pic_tf.replicas import collectives


class Pager:
    """Mover of rows between the device and blocks on disk, a stride at a time.

    When the window has moved on, the block behind it is copied to the host and the block of the
    next window takes its place. A thread of its own writes the one and has read the other before,
    in the order of the requests, so that a block to be read has been written. Nothing is ever
    changed in place: a checkpoint needs no copy of the blocks (`release` deletes those that no
    checkpoint needs).

    Args:
      classifier: with a paged store; made in the strategy's scope.
      schedules: of every replica.
      stores: of each replica of this worker.
      strategy: of the classifier.

    Attributes:
      schedules: of every replica, as `open` has set them.
      stores: of each replica of this worker.
      row_size: bytes of a resting row.
      window: number of the window with its rows here.

    Raises:
      ValueError: for a classifier with another number of rows on the device.
    """

    def __init__(
        self,
        classifier: InstanceClassifier,
        schedules: list[WindowSchedule],
        stores: list[BlockStore],
        strategy: tf.distribute.Strategy,
    ):
        if classifier.rows_on_device != schedules[0].rows_on_device:
            raise ValueError(
                f"expected rows_on_device={schedules[0].rows_on_device}, got "
                f"{classifier.rows_on_device}"
            )
        self.schedules, self.stores = schedules, stores
        self._local = collectives.local_indices(strategy)
        names = (*TABLES, "rows", "locations")
        tables = [getattr(classifier.store, name) for name in names]
        of_replicas = zip(*map(strategy.experimental_local_results, tables))
        self._variables = [dict(zip(names, variables)) for variables in of_replicas]
        self.row_size = 2 * 4 * classifier.embedding_dim + 8
        self._thread = IOThread()
        self.window = 0

    @property
    def own_schedules(self) -> list[WindowSchedule]:
        """Schedules of this worker's replicas."""
        return [self.schedules[replica] for replica in self._local]

    @property
    def visited_before(self) -> bool:
        """True where all rows count as visited before the first window (`WindowSchedule`)."""
        return self.schedules[0].visited_before

    @property
    def segments(self) -> list[RunSegment]:
        """Segments of the blocks that are there, and of those to come."""
        return self.stores[0].segments

    def open(
        self, step: int, segments: Sequence[RunSegment] = (), visited_before: bool = False
    ) -> None:
        """Begin at a step, with nothing but untouched rows on the device.

        Args:
          step: the next one to take.
          segments: of the blocks that are there.
          visited_before: whether all rows count as visited before the first window.

        Raises:
          OSError: where there cannot be a folder for blocks.
        """
        self.schedules = self._visited(visited_before)
        self.window = self.schedules[0].window_of(step)
        for schedule, store in zip(self.own_schedules, self.stores):
            store.begin(step, schedule.needed(self.window), list(segments))
        for schedule, variables in zip(self.own_schedules, self._variables):
            for name in TABLES:
                variables[name].assign(tf.zeros_like(variables[name]))
            _assign(variables, _sorted_rows(schedule, self.window))
        self._thread.read(self._read, self.window)

    def bytes_there(self) -> int:
        """Count the bytes of the blocks of this worker."""
        return int(sum(store.rows_there() for store in self.stores) * self.row_size)

    def forget(self) -> None:
        """Delete blocks that this start of the run writes itself, of other starts; after `open`."""
        for schedule, store in zip(self.own_schedules, self.stores):
            store.forget(schedule.needed(self.window).stop)

    def missing(self) -> list[tuple[int, str]]:
        """List (number, folder) of blocks that a run lacks from here on; after `open`."""
        found = set()
        for schedule, store in zip(self.own_schedules, self.stores):
            found.update(store.missing(schedule.needed(self.window)))
        return sorted(found)

    def follow(self, step: int) -> None:
        """Bring the rows that a step needs.

        Args:
          step: the next one to take; not beyond the window after the last one seen.

        Raises:
          OSError: where a block could not be written.
          ValueError: where one could not be read.
        """
        while self.window < self.schedules[0].window_of(step):
            self.turn()

    def turn(self) -> None:
        """Move on by one window, after its last step and before the last step of the next one.

        Raises:
          OSError: where a block could not be written.
          ValueError: where one could not be read.
        """
        coming = self._thread.result()
        self._thread.check()
        of_replicas = zip(self.own_schedules, self.stores, self._variables, coming)
        for schedule, store, variables, (arrived, rows) in of_replicas:
            leaving = schedule.leaving(self.window)
            positions = tf.range(leaving.start, leaving.stop, dtype=tf.int64)
            locations = positions % schedule.rows_on_device
            if leaving.start in schedule.here(self.window):
                tables = {name: variables[name] for name in TABLES}
                left = {n: collectives.gather_rows(v, locations).numpy() for n, v in tables.items()}
                self._thread.write(store.write, leaving.start // schedule.stride, left)
            for name in TABLES:
                collectives.scatter_rows(variables[name], locations, tf.constant(arrived[name]))
            _assign(variables, rows)
        self.window += 1
        self._thread.read(self._read, self.window)

    def flush(self) -> None:
        """Wait until all blocks are written.

        Raises:
          OSError: where one could not be.
        """
        self._thread.flush()
        for store in self.stores:
            store.sync()

    def release(self, step: int) -> None:
        """Delete, on the other thread, blocks that nothing needs any more.

        Args:
          step: of the oldest state to go back to.
        """

        def remove(store: BlockStore, first: int) -> None:
            try:
                store.release(first)
            except OSError as error:  # the next time removes them
                tqdm.write(f"old blocks of rows are still there ({error})", file=sys.stderr)

        for schedule, store in zip(self.own_schedules, self.stores):
            self._thread.write(remove, store, schedule.needed(schedule.window_of(step)).start)

    def close(self) -> None:
        """Wait for everything under way."""
        self._thread.close()

    def here(self) -> list[np.ndarray]:
        """List the row numbers on the device of each of all replicas, int64 [m], -1 for none."""
        return [schedule.rows_here(self.window) for schedule in self.schedules]

    def rows_at(self, step: int, visited_before: bool) -> list[np.ndarray]:
        """List those that `here` would, opened at a step; see `open` for the arguments."""
        schedules = self._visited(visited_before)
        return [schedule.rows_here(schedule.window_of(step)) for schedule in schedules]

    def stay(self, step: int) -> list[np.ndarray]:
        """Count views of each of all replicas, int64 [m], from a step until rows `here` leave."""
        return [schedule.views_until_leaving(step) for schedule in self.schedules]

    def _visited(self, visited_before: bool) -> list[WindowSchedule]:
        """Set in all schedules whether all rows count as visited before the first window."""
        visited = {"visited_before": visited_before}
        return [dataclasses.replace(schedule, **visited) for schedule in self.schedules]

    def _read(
        self, window: int
    ) -> list[tuple[dict[str, np.ndarray], tuple[np.ndarray, np.ndarray]]]:
        """Read the next block of each replica, and list the rows on the device with it."""
        found = []
        for schedule, store, variables in zip(self.own_schedules, self.stores, self._variables):
            stop, dim = schedule.here(window).stop, variables["weights"].shape[1]
            arriving = read_block(schedule, store, range(stop, stop + schedule.stride), dim)
            found.append((arriving, _sorted_rows(schedule, window + 1)))
        return found


def read_block(
    schedule: WindowSchedule, store: BlockStore, block: range, dim: int
) -> dict[str, np.ndarray]:
    """Read rows as they were left one sweep ago; zeros, with stamp 0, for rows never visited.

    Args:
      schedule: of the replica.
      store: its blocks.
      block: positions of the endless sequence.
      dim: D.

    Returns:
      weights float32 [n, D], momentum float32 [n, D], stamp int64 [n].
    """
    types, n = table_types(dim), len(block)
    rows = {name: np.zeros([n, *shape], dtype) for name, (shape, dtype) in types.items()}
    for number, of_block, of_rows in schedule.earlier(block):
        earlier = store.read(number)
        for name in TABLES:
            rows[name][of_rows] = earlier[name][of_block]
    return rows


def _sorted_rows(schedule: WindowSchedule, window: int) -> tuple[np.ndarray, np.ndarray]:
    """List the rows on the device in a window, int64 [n] ascending, and their locations."""
    here = schedule.here(window)
    rows = np.full(schedule.rows_on_device, np.iinfo(np.int64).max)
    rows[np.arange(here.start, here.stop) % schedule.rows_on_device] = schedule.rows(here)
    locations = np.argsort(rows)
    return rows[locations], locations


def _assign(
    variables: dict[str, tf.Variable], rows_and_locations: tuple[np.ndarray, np.ndarray]
) -> None:
    """Set the rows and locations of a store."""
    for name, value in zip(("rows", "locations"), rows_and_locations):
        variables[name].assign(value)
