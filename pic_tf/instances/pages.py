"""Which rows the sliding window needs on the device, and where they are there."""

import dataclasses

import numpy as np
import tensorflow as tf

from pic_tf.data.order import SlidingWindow


@dataclasses.dataclass(frozen=True)
class Pages:
    """The rows of one replica in visiting order, in blocks of a stride.

    Number the visits without wrapping around: the window of step t, n = floor(t / (W / B)), holds the places nS to
    nS + W - 1 of an endless sequence, which is the permutation over and over. On the device are the window, the stride
    that comes next, and the strides behind it whose rows may still leave the ring for the store:

        (n - q) S to (n + 1) S + W - 1,    q = ceil(K / W)

    so W + 2S rows where K <= W (all sizes are the replica's own). Place v of the sequence is at v mod that number.

    Attributes:
      order: of the replica.
      num_negatives: K over all replicas.

    Raises:
      ValueError: where the window needs all rows, or nearly all.
    """

    order: SlidingWindow
    num_negatives: int

    def __post_init__(self) -> None:
        order = self.order
        if self.places + order.own_stride > order.own_instances:
            needed = (self.places + order.own_stride) * order.num_replicas
            raise ValueError(
                f"expected at least {needed:,} instances for rows in host memory or on disk (window, {self.behind + 2} "
                f"strides), got {order.num_instances:,}: use --instance_store=device, or smaller windows"
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
    def places(self) -> int:
        """Rows on the device."""
        return self.order.own_window + (1 + self.behind) * self.stride

    def window_of(self, step: int) -> int:
        """n, the window that a step visits."""
        return step // self.order.steps_per_window

    def here(self, window: int) -> range:
        """What is on the device: places of the endless sequence; there is nothing at those before 0."""
        first = (window - self.behind) * self.stride
        return range(first, first + self.places)

    def all_visited(self) -> int:
        """The first window at which every row is on the device or was."""
        return max(-(-(self.order.own_instances - self.order.own_window) // self.stride) - 1, 0)

    def rows(self, sequence: range) -> np.ndarray:
        """int64 [n] row numbers (id // R) at places of the endless sequence, which have to be 0 or more."""
        return self.instance_ids(sequence) // self.order.num_replicas

    def instance_ids(self, sequence: range) -> np.ndarray:
        """int64 [n], whose rows these are."""
        positions = tf.range(sequence.start, sequence.stop, dtype=tf.int64) % self.order.own_instances
        return self.order.instances_at(positions).numpy()

    def of_block(self, number: int) -> np.ndarray:
        """int64 [S], whose rows a block holds."""
        return self.instance_ids(range(number * self.stride, (number + 1) * self.stride))

    def needed(self, window: int) -> range:
        """Blocks that the future reads, from the state at the beginning of a window on."""
        here = self.here(window)
        return range(max(here.stop - self.order.own_instances, 0) // self.stride, max(here.start, 0) // self.stride)

    def earlier(self, block: range) -> list[tuple[int, slice, slice]]:
        """Where the rows at these places were left one sweep ago.

        Args:
          block: places of the endless sequence.

        Returns:
          (number of the block that holds them, which of its rows, which rows of `block` these are), of those that were
          visited at all.
        """
        first = block.start - self.order.own_instances
        parts = []
        for number in range(max(first, 0) // self.stride, -(-(first + len(block)) // self.stride)):
            begin = max(number * self.stride, first)
            end = min((number + 1) * self.stride, first + len(block))
            offset = number * self.stride
            parts.append((number, slice(begin - offset, end - offset), slice(begin - first, end - first)))
        return parts
