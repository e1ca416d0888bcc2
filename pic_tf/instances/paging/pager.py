"""Bring the rows that the sliding window needs to the device, and take away those that it has left."""

import dataclasses
import errno
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tqdm import tqdm

from pic_tf.files.progress import drawing_interval
from pic_tf.instances.classifier import InstanceClassifier
from pic_tf.instances.paging.blocks import TABLES
from pic_tf.instances.paging.schedule import Pages
from pic_tf.instances.paging.segments import Lineage, Writer
from pic_tf.instances.rows import Rows
from pic_tf.replicas import collectives

_PART = 65536  # rows whose first weights are drawn at once


class Pager(keras.callbacks.Callback):
    """Moves rows between the device and blocks in host memory or on disk, a stride at a time.

    When the window has moved on, the block behind it is copied to the host and the one that the next window will need
    takes its place. A thread of its own writes the one and has read the other before, in the order in which they
    were asked for, so that what is read has been written. Nothing is ever changed in place: a checkpoint needs no copy
    of the blocks (`release` deletes those that no checkpoint needs). As a callback it follows `fit`.

    Args:
      classifier: whose store is paged; made in the strategy's scope.
      pages: of each replica.
      blocks: of each replica of this worker.
      strategy: of the classifier.
      in_memory: whether the blocks are in host memory, so that checkpoints have to hold them.

    Raises:
      ValueError: for a classifier with another number of rows on the device.
    """

    _supports_tf_logs = True  # it reads none, so none is fetched from the device

    def __init__(
        self,
        classifier: InstanceClassifier,
        pages: list[Pages],
        blocks: list[Lineage],
        strategy: tf.distribute.Strategy,
        in_memory: bool,
    ):
        super().__init__()
        self.in_memory, self._all_pages, self._blocks = in_memory, pages, blocks
        self._local = collectives.local_indices(strategy)
        store = self._store = classifier.store
        if classifier.rows_on_device != pages[0].places:
            raise ValueError(f"expected rows_on_device={pages[0].places}, got {classifier.rows_on_device}")
        self._variables = [
            dict(zip((*TABLES, "rows", "places"), variables))
            for variables in zip(
                *(strategy.experimental_local_results(getattr(store, name)) for name in (*TABLES, "rows", "places"))
            )
        ]
        self._thread = ThreadPoolExecutor(1, "pager")
        self._written: list[Future] = []
        self._coming: Future | None = None
        self._window = self._step = self._in_epoch = 0

    @property
    def _pages(self) -> list[Pages]:
        """Of this worker's replicas."""
        return [self._all_pages[replica] for replica in self._local]

    def open(self, step: int, writers: Sequence[Writer] = ()) -> None:
        """Begin at a step: nothing but untouched rows is on the device.

        Args:
          step: the next one to take.
          writers: of the blocks that are there.

        Raises:
          OSError: where there cannot be a folder for blocks.
        """
        self._step, self._window = step, self._pages[0].window_of(step)
        for pages, blocks in zip(self._pages, self._blocks):
            blocks.begin(step, pages.needed(self._window), list(writers))
        for pages, variables in zip(self._pages, self._variables):
            for name in TABLES:
                variables[name].assign(tf.zeros_like(variables[name]))
            _assign(variables, _sorted_rows(pages, self._window))
        self._coming = self._thread.submit(self._read, self._window)

    @property
    def visited_before(self) -> bool:
        """Whether all rows count as visited before the first window (`Pages`); to be set before anything is opened."""
        return self._all_pages[0].visited_before

    @visited_before.setter
    def visited_before(self, value: bool) -> None:
        self._all_pages = [dataclasses.replace(pages, visited_before=value) for pages in self._all_pages]

    @property
    def writers(self) -> list[Writer]:
        """Of the blocks that are there, and of those to come."""
        return self._blocks[0].writers

    def bytes_there(self) -> int:
        """Of the blocks of this worker."""
        return int(sum(blocks.rows_there() for blocks in self._blocks) * self._row_size())

    def forget(self) -> None:
        """Delete blocks of other starts of the run that this one writes itself; after `open`."""
        for pages, blocks in zip(self._pages, self._blocks):
            blocks.forget(pages.needed(self._window).stop)

    def missing(self) -> list[tuple[int, str]]:
        """(number, folder) of blocks that a run needs from here on and that are not there; after `open`."""
        both = zip(self._pages, self._blocks)
        return sorted(set().union(*(blocks.missing(pages.needed(self._window)) for pages, blocks in both)))

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._in_epoch = 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._step += batch + 1 - self._in_epoch  # several where steps_per_execution says so
        self._in_epoch = batch + 1
        self.follow(self._step)

    def follow(self, step: int) -> None:
        """See that the rows are here which a step needs.

        Args:
          step: the next one to take; not beyond the window after the last one seen.

        Raises:
          OSError: where a block could not be written.
          ValueError: where one could not be read.
        """
        while self._window < self._pages[0].window_of(step):
            self.turn()

    def turn(self) -> None:
        """Move on by one window; to be called between its last step and the last step of the next one.

        Raises:
          OSError: where a block could not be written.
          ValueError: where one could not be read.
        """
        coming = self._coming.result()
        self._check_written(wait=False)
        for pages, blocks, variables, (arrived, rows) in zip(self._pages, self._blocks, self._variables, coming):
            leaving = pages.leaving(self._window)
            places = tf.range(leaving.start, leaving.stop, dtype=tf.int64) % pages.places
            if leaving.start in pages.here(self._window):
                left = {name: collectives.gather_rows(variables[name], places).numpy() for name in TABLES}
                number = leaving.start // pages.stride
                self._written.append(self._thread.submit(blocks.write, number, left))
            for name in TABLES:
                collectives.scatter_rows(variables[name], places, tf.constant(arrived[name]))
            _assign(variables, rows)
        self._window += 1
        self._coming = self._thread.submit(self._read, self._window)
        if self.in_memory:
            self.release(self._window * self._pages[0].order.steps_per_window)

    def flush(self) -> None:
        """Wait until everything that was to be written is.

        Raises:
          OSError: where something could not be.
        """
        self._check_written(wait=True)
        for blocks in self._blocks:
            blocks.keep()

    def release(self, step: int) -> None:
        """Delete blocks that nothing needs any more, off this thread.

        Args:
          step: of the oldest state to go back to.
        """

        def remove(blocks: Lineage, first: int) -> None:
            try:
                blocks.release(first)
            except OSError as error:  # the next time removes them
                tqdm.write(f"old blocks of rows are still there ({error})", file=sys.stderr)

        for pages, blocks in zip(self._pages, self._blocks):
            self._thread.submit(remove, blocks, pages.needed(pages.window_of(step)).start)

    def close(self) -> None:
        """Wait for what is under way."""
        self._thread.shutdown()

    def here(self, step: int | None = None) -> list[np.ndarray]:
        """int64 [m], the row numbers on the device of each of all replicas, -1 for none; now, or at a step."""
        window, numbers = self._window if step is None else self._pages[0].window_of(step), []
        for pages in self._all_pages:
            rows = pages.rows(pages.here(window))
            numbers.append(np.pad(rows, (pages.places - len(rows), 0), constant_values=-1))
        return numbers

    def stay(self, step: int) -> list[np.ndarray]:
        """int64 [m] of each of all replicas, after how many of its views, from a step on, the rows `here` leave."""
        window, views = self._pages[0].window_of(step), []
        for pages in self._all_pages:
            order, here = pages.order, pages.here(window)
            turns = np.arange(here.stop - pages.places, here.stop) // pages.stride + pages.behind + 1
            views.append((turns * order.steps_per_window - step) * (order.batch_size // order.num_replicas))
        return views

    def fill(self, step: int, rows: Rows) -> None:
        """Write the blocks that a run at a step needs.

        Where rows were trained, under another order of visits, that this one comes to later, it counts as if it had
        visited all of them once before (`visited_before`).

        Args:
          step: the next one to take.
          rows: of all instances.

        Raises:
          OSError: where there is not room for them, or they cannot be written.
        """
        self.visited_before = any(_trained_later(pages, step, rows.stamp) for pages in self._all_pages)
        for pages, blocks in zip(self._pages, self._blocks):
            first = pages.needed(pages.window_of(step)).start
            blocks.begin(step, range(first, first), [])
            blocks.clear()
        if not self.in_memory:
            self._check_room(step)
        for pages, blocks in zip(self._pages, self._blocks):
            for number in pages.needed(pages.window_of(step)):
                ids = pages.of_block(number)
                blocks.write(number, {name: np.array(getattr(rows, name)[ids]) for name in TABLES})

    def with_blocks(self, rows: Rows) -> Rows:
        """The rows of all instances, of which `rows` are those on the device, of all replicas; after `flush`."""
        n, dim = self._pages[0].order.num_instances, rows.weights.shape[1]
        tables = {name: np.zeros([n, *shape], dtype) for name, (shape, dtype) in table_types(dim).items()}
        fill_tables(tables, rows, self._pages, self._blocks, self._window, self._store.first_weights)
        return dataclasses.replace(rows, **tables, instance_ids=None)

    def _read(self, window: int) -> list[tuple[dict[str, np.ndarray], tuple[np.ndarray, np.ndarray]]]:
        """Of each replica: the block that comes to the device after a window, and which rows are where then."""
        found = []
        for pages, blocks, variables in zip(self._pages, self._blocks, self._variables):
            stop = pages.here(window).stop
            arriving = read_block(pages, blocks, range(stop, stop + pages.stride), variables["weights"].shape[1])
            found.append((arriving, _sorted_rows(pages, window + 1)))
        return found

    def _check_room(self, step: int) -> None:
        """Refuse a disk on which the blocks that `fill` is to write will not fit."""
        needed = sum(len(pages.needed(pages.window_of(step))) * pages.stride for pages in self._pages)
        needed, folder = needed * self._row_size(), self._blocks[0].folder
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise OSError(
                errno.ENOSPC,
                f"expected {needed / 1e9:.3g} GB free for the rows off the device, got {free / 1e9:.3g} GB: "
                "make room, or name another disk with --rows_dir",
                str(folder),
            )

    def _row_size(self) -> int:
        """Bytes of a resting row."""
        return 2 * 4 * self._store.weights.shape[1] + 8

    def _check_written(self, wait: bool) -> None:
        pending = []
        for future in self._written:
            if wait or future.done():
                future.result()
            else:
                pending.append(future)
        self._written = pending


def table_types(dim: int) -> dict[str, tuple[list[int], type]]:
    """(shape of a row, dtype) by table."""
    return {"weights": ([dim], np.float32), "momentum": ([dim], np.float32), "stamp": ([], np.int64)}


def fill_tables(
    tables: dict[str, np.ndarray],
    rows: Rows,
    pages: list[Pages],
    blocks: list[Lineage],
    window: int,
    first_weights: Callable[[tf.Tensor], tf.Tensor],
    progress: str = "",
) -> None:
    """Put the rows of all instances into tables.

    Args:
      tables: weights, momentum and stamp, [N, ...], zeros; may be mapped from files.
      rows: those on the devices.
      pages: of each replica.
      blocks: of each replica.
      window: whose beginning the state is of.
      first_weights: of instances int64 [b], float32 [b, D].
      progress: what to call it on a progress bar; "" for none.

    Raises:
      ValueError: for a block that cannot be read.
    """
    total = sum(len(of_replica.needed(window)) for of_replica in pages)
    with tqdm(total=total, desc=progress, unit="block", disable=not progress, mininterval=drawing_interval()) as bar:
        for of_replica, its_blocks in zip(pages, blocks):
            for number in of_replica.needed(window):  # in this order: what comes later is newer
                block, ids = its_blocks.read(number), of_replica.of_block(number)
                for name, table in tables.items():
                    table[ids] = block[name]
                bar.update()
    for name, table in tables.items():
        table[rows.instance_ids] = getattr(rows, name)
    fill_untouched(tables, first_weights)


def fill_untouched(tables: dict[str, np.ndarray], first_weights: Callable[[tf.Tensor], tf.Tensor]) -> None:
    """Give the rows of stamp 0 their first weights.

    Args:
      tables: weights and stamp, [N, ...]; may be mapped from files.
      first_weights: of instances int64 [b], float32 [b, D].
    """
    never = np.flatnonzero(np.asarray(tables["stamp"]) == 0)
    for first in range(0, len(never), _PART):
        ids = never[first : first + _PART]
        tables["weights"][ids] = first_weights(tf.constant(ids))


def _trained_later(pages: Pages, step: int, stamp: np.ndarray) -> bool:
    """Whether a row was trained (stamps int64 [N]) which these windows come to after `step` for the first time."""
    later = pages.to_come(pages.window_of(step))
    parts = (later[first : first + _PART] for first in range(0, len(later), _PART))
    return any(np.any(stamp[pages.first_time(part)]) for part in parts)


def _sorted_rows(pages: Pages, window: int) -> tuple[np.ndarray, np.ndarray]:
    """int64 [n] rows that are on the device in a window, in ascending order, and int64 [n] their places."""
    here = pages.here(window)
    rows = np.full(pages.places, np.iinfo(np.int64).max)
    rows[np.arange(here.start, here.stop) % pages.places] = pages.rows(here)
    places = np.argsort(rows)
    return rows[places], places


def _assign(variables: dict[str, tf.Variable], rows_and_places: tuple[np.ndarray, np.ndarray]) -> None:
    for name, value in zip(("rows", "places"), rows_and_places):
        variables[name].assign(value)


def read_block(pages: Pages, blocks: Lineage, block: range, dim: int) -> dict[str, np.ndarray]:
    """Rows as they were left one sweep ago; zeros, with stamp 0, where they were never visited.

    Args:
      pages: of the replica.
      blocks: its blocks.
      block: places of the endless sequence.
      dim: D.

    Returns:
      weights float32 [n, D], momentum float32 [n, D], stamp int64 [n].
    """
    rows = {name: np.zeros([len(block), *shape], dtype) for name, (shape, dtype) in table_types(dim).items()}
    for number, of_block, of_rows in pages.earlier(block):
        earlier = blocks.read(number)
        for name in TABLES:
            rows[name][of_rows] = earlier[name][of_block]
    return rows
