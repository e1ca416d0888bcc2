"""Schedule of rows that the sliding window needs on the device, and of blocks to be read."""

import dataclasses

import numpy as np
import tensorflow as tf

from pic_tf.data.order import SlidingWindow
from pic_tf.instances.store import EMPTY


@dataclasses.dataclass(frozen=True)
class WindowSchedule:
    """Rows of one replica in visiting order, in blocks of a stride.

    The window of step t, n = floor(t / (W / B)), holds the positions nS to nS + W - 1 of the
    order's endless sequence. On the device are the window, the stride that comes next, and the
    strides behind it whose rows may still leave the ring for the store:

        (n - q) S to (n + 1) S + W - 1,    q = ceil(K / W)

    so W + 2S rows where K <= W (all sizes are the replica's own). Position p has location p mod
    that number in the device's tables.

    At the beginning no row was visited: there is nothing at the positions before 0. But where rows
    come from another order of visits, those before 0 count as visited by this one too, in the sweep
    that it would have made before.

    Attributes:
      order: of the replica.
      num_negatives: K over all replicas.
      visited_before: whether there are rows at the positions before 0.

    Raises:
      ValueError: where the window needs all rows, or nearly all.
    """

    order: SlidingWindow
    num_negatives: int
    visited_before: bool = False

    def __post_init__(self) -> None:
        order = self.order
        if self.rows_on_device + order.own_stride > len(order.shards) * order.shard_sizes.min():
            needed = (self.rows_on_device + order.own_stride) * order.num_replicas
            raise ValueError(
                f"expected at least {needed:,} instances for rows on disk (window, "
                f"{self.behind + 2} strides), got {order.num_instances:,}: "
                "use --instance_store=device, or smaller windows"
            )

    @property
    def stride(self) -> int:
        """S, rows of a block."""
        return self.order.own_stride

    @property
    def behind(self) -> int:
        """Strides behind the window, q; W counts whole batches."""
        r = self.order.num_replicas
        visits = self.order.steps_per_window * (self.order.batch_size // r)
        return -(-(self.num_negatives // r) // visits)

    @property
    def rows_on_device(self) -> int:
        """Rows on the device."""
        return self.order.own_window + (1 + self.behind) * self.stride

    def window_of(self, step: int) -> int:
        """Give n, the window that a step visits."""
        return step // self.order.steps_per_window

    def here(self, window: int) -> range:
        """Give the positions of the endless sequence with rows on the device."""
        first = (window - self.behind) * self.stride
        return range(self._begun(first), first + self.rows_on_device)

    def rows_here(self, window: int) -> np.ndarray:
        """List the row numbers on the device, int64 [rows_on_device], -1 where none is yet."""
        rows = self.rows(self.here(window))
        return np.pad(rows, (self.rows_on_device - len(rows), 0), constant_values=EMPTY)

    def views_until_leaving(self, step: int) -> np.ndarray:
        """Count the views of this replica from a step until each of `rows_here` leaves, int64."""
        order, stop = self.order, self.here(self.window_of(step)).stop
        last_windows = np.arange(stop - self.rows_on_device, stop) // self.stride + self.behind
        steps = (last_windows + 1) * order.steps_per_window - step
        return steps * (order.batch_size // order.num_replicas)

    def leaving(self, window: int) -> range:
        """Give the positions of the stride that leaves after a window; before 0 nothing is."""
        first = (window - self.behind) * self.stride
        return range(first, first + self.stride)

    def rows(self, sequence: range) -> np.ndarray:
        """List the row numbers (id // R) at positions of the endless sequence, int64 [n]."""
        return self.instance_ids(sequence) // self.order.num_replicas

    def instance_ids(self, sequence: range) -> np.ndarray:
        """List the instances at positions of the endless sequence, int64 [n]."""
        positions = tf.range(sequence.start, sequence.stop, dtype=tf.int64)
        return self.order.instances_at(positions).numpy()

    def of_block(self, number: int) -> np.ndarray:
        """List the instances of a block's rows, int64 [S]."""
        return self.instance_ids(range(number * self.stride, (number + 1) * self.stride))

    def to_come(self, window: int) -> range:
        """Give positions of rows that come for the first time, and of some that come again."""
        return range(self.here(window).stop, self._sweep)

    def first_time(self, sequence: range) -> np.ndarray:
        """List the instances with their first visit at these positions of all from 0 on, int64."""
        shards, positions = len(self.order.shards), np.arange(sequence.start, sequence.stop)
        first = positions // shards < self.order.shard_sizes[positions % shards]
        return self.order.instances_at(tf.constant(positions[first])).numpy()

    def needed(self, window: int) -> range:
        """Give the blocks to be read from the beginning of a window on."""
        here = self.here(window)
        first = self._begun(here.stop - self._sweep)
        return range(first // self.stride, here.start // self.stride)

    def earlier(self, block: range) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Find the blocks in which the rows at these positions were left one sweep ago.

        Args:
          block: positions of the endless sequence.

        Returns:
          (number of such a block, int64 [n] indices of its rows, int64 [n] their indices in
          `block`), without rows that were never visited.
        """
        shards, positions = len(self.order.shards), np.arange(block.start, block.stop)
        before = positions - shards * self.order.shard_sizes[positions % shards]
        numbers, of_rows = before // self.stride, before % self.stride
        there = (before >= 0) | self.visited_before
        parts = []
        for number in np.unique(numbers[there]):
            found = np.flatnonzero(there & (numbers == number))
            parts.append((int(number), of_rows[found], found))
        return parts

    @property
    def _sweep(self) -> int:
        """Positions until all rows have come again, with the largest shards of any replica."""
        return len(self.order.shards) * -(-self.order.num_instances // self.order.num_shards)

    def _begun(self, position: int) -> int:
        """Give the first position from there on that holds a row."""
        return position if self.visited_before else max(position, 0)
