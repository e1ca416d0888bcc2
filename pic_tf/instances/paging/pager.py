"""Bring the rows that the sliding window needs to the device, and take away those that it has left."""

import dataclasses
import sys
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from pic_tf.instances.classifier import InstanceClassifier
from pic_tf.instances.paging.blocks import TABLES, table_types
from pic_tf.instances.paging.io_thread import IOThread
from pic_tf.instances.paging.schedule import Pages
from pic_tf.instances.paging.segments import Lineage, Writer
from pic_tf.replicas import collectives


class Pager:
    """Moves rows between the device and blocks on disk, a stride at a time.

    When the window has moved on, the block behind it is copied to the host and the one that the next window will need
    takes its place. A thread of its own writes the one and has read the other before, in the order in which they
    were asked for, so that what is read has been written. Nothing is ever changed in place: a checkpoint needs no copy
    of the blocks (`release` deletes those that no checkpoint needs).

    Args:
      classifier: whose store is paged; made in the strategy's scope.
      pages: of every replica.
      blocks: of each replica of this worker.
      strategy: of the classifier.

    Attributes:
      pages: of every replica, as `open` has set them.
      blocks: of each replica of this worker.
      row_size: bytes of a resting row.
      window: number of the window whose rows are here.

    Raises:
      ValueError: for a classifier with another number of rows on the device.
    """

    def __init__(
        self,
        classifier: InstanceClassifier,
        pages: list[Pages],
        blocks: list[Lineage],
        strategy: tf.distribute.Strategy,
    ):
        if classifier.rows_on_device != pages[0].places:
            raise ValueError(f"expected rows_on_device={pages[0].places}, got {classifier.rows_on_device}")
        self.pages, self.blocks = pages, blocks
        self._local = collectives.local_indices(strategy)
        names, store = (*TABLES, "rows", "places"), classifier.store
        of_replicas = zip(*(strategy.experimental_local_results(getattr(store, name)) for name in names))
        self._variables = [dict(zip(names, variables)) for variables in of_replicas]
        self.row_size = 2 * 4 * classifier.embedding_dim + 8
        self._thread = IOThread()
        self.window = 0

    @property
    def own_pages(self) -> list[Pages]:
        """Of this worker's replicas."""
        return [self.pages[replica] for replica in self._local]

    @property
    def visited_before(self) -> bool:
        """Whether all rows count as visited before the first window (`Pages`)."""
        return self.pages[0].visited_before

    @property
    def writers(self) -> list[Writer]:
        """Of the blocks that are there, and of those to come."""
        return self.blocks[0].writers

    def open(self, step: int, writers: Sequence[Writer] = (), visited_before: bool = False) -> None:
        """Begin at a step: nothing but untouched rows is on the device.

        Args:
          step: the next one to take.
          writers: of the blocks that are there.
          visited_before: whether all rows count as visited before the first window.

        Raises:
          OSError: where there cannot be a folder for blocks.
        """
        self.pages = [dataclasses.replace(pages, visited_before=visited_before) for pages in self.pages]
        self.window = self.pages[0].window_of(step)
        for pages, blocks in zip(self.own_pages, self.blocks):
            blocks.begin(step, pages.needed(self.window), list(writers))
        for pages, variables in zip(self.own_pages, self._variables):
            for name in TABLES:
                variables[name].assign(tf.zeros_like(variables[name]))
            _assign(variables, _sorted_rows(pages, self.window))
        self._thread.read(self._read, self.window)

    def bytes_there(self) -> int:
        """Bytes of the blocks of this worker."""
        return int(sum(blocks.rows_there() for blocks in self.blocks) * self.row_size)

    def forget(self) -> None:
        """Delete blocks of other starts of the run that this one writes itself; after `open`."""
        for pages, blocks in zip(self.own_pages, self.blocks):
            blocks.forget(pages.needed(self.window).stop)

    def missing(self) -> list[tuple[int, str]]:
        """(number, folder) of blocks that a run needs from here on and that are not there; after `open`."""
        both = zip(self.own_pages, self.blocks)
        return sorted(set().union(*(blocks.missing(pages.needed(self.window)) for pages, blocks in both)))

    def follow(self, step: int) -> None:
        """Bring the rows that a step needs.

        Args:
          step: the next one to take; not beyond the window after the last one seen.

        Raises:
          OSError: where a block could not be written.
          ValueError: where one could not be read.
        """
        while self.window < self.pages[0].window_of(step):
            self.turn()

    def turn(self) -> None:
        """Move on by one window; to be called between its last step and the last step of the next one.

        Raises:
          OSError: where a block could not be written.
          ValueError: where one could not be read.
        """
        coming = self._thread.result()
        self._thread.check()
        for pages, blocks, variables, (arrived, rows) in zip(self.own_pages, self.blocks, self._variables, coming):
            leaving = pages.leaving(self.window)
            places = tf.range(leaving.start, leaving.stop, dtype=tf.int64) % pages.places
            if leaving.start in pages.here(self.window):
                left = {name: collectives.gather_rows(variables[name], places).numpy() for name in TABLES}
                self._thread.write(blocks.write, leaving.start // pages.stride, left)
            for name in TABLES:
                collectives.scatter_rows(variables[name], places, tf.constant(arrived[name]))
            _assign(variables, rows)
        self.window += 1
        self._thread.read(self._read, self.window)

    def flush(self) -> None:
        """Wait until everything that was to be written is.

        Raises:
          OSError: where something could not be.
        """
        self._thread.flush()
        for blocks in self.blocks:
            blocks.keep()

    def release(self, step: int) -> None:
        """Delete, on the other thread, blocks that nothing needs any more.

        Args:
          step: of the oldest state to go back to.
        """

        def remove(blocks: Lineage, first: int) -> None:
            try:
                blocks.release(first)
            except OSError as error:  # the next time removes them
                tqdm.write(f"old blocks of rows are still there ({error})", file=sys.stderr)

        for pages, blocks in zip(self.own_pages, self.blocks):
            self._thread.write(remove, blocks, pages.needed(pages.window_of(step)).start)

    def close(self) -> None:
        """Wait for what is under way."""
        self._thread.close()

    def here(self) -> list[np.ndarray]:
        """int64 [m], the row numbers on the device of each of all replicas, -1 for none."""
        return [pages.rows_here(self.window) for pages in self.pages]

    def stay(self, step: int) -> list[np.ndarray]:
        """int64 [m] of each of all replicas, after how many of its views, from a step on, the rows `here` leave."""
        return [pages.views_until_leaving(step) for pages in self.pages]

    def _read(self, window: int) -> list[tuple[dict[str, np.ndarray], tuple[np.ndarray, np.ndarray]]]:
        """Of each replica: the block that comes to the device after a window, and which rows are where then."""
        found = []
        for pages, blocks, variables in zip(self.own_pages, self.blocks, self._variables):
            stop = pages.here(window).stop
            arriving = read_block(pages, blocks, range(stop, stop + pages.stride), variables["weights"].shape[1])
            found.append((arriving, _sorted_rows(pages, window + 1)))
        return found


def read_block(pages: Pages, blocks: Lineage, block: range, dim: int) -> dict[str, np.ndarray]:
    """Read rows as they were left one sweep ago; zeros, with stamp 0, where they were never visited.

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
