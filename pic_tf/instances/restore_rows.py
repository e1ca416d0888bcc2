"""Put rows of a checkpoint back, whatever the number of replicas that wrote it."""

import numpy as np
import tensorflow as tf

from pic_tf.instances.classifier import InstanceClassifier
from pic_tf.instances.rows import BLOCK, RowSnapshot, all_rows, check_sizes, parts
from pic_tf.instances.store import EMPTY
from pic_tf.replicas import collectives


def restore(
    rows: RowSnapshot,
    classifier: InstanceClassifier,
    strategy: tf.distribute.Strategy,
    here: list[np.ndarray] | None = None,
    stay: list[np.ndarray] | None = None,
) -> None:
    """Put rows where they belong, whatever the number of replicas they come from.

    A row of the ring that is not among those `here`, or would leave the device before the ring,
    rests. The order of visits behind `here` has no such row, but the rows may come from another.

    Args:
      rows: as `snapshot` gave them.
      classifier: the layer.
      strategy: of the layer.
      here: where the store is paged, the row numbers that are to be on the devices, as `snapshot`
        takes them.
      stay: int64 [m] of each replica, after how many of its views these leave the device.

    Raises:
      ValueError: for rows of another number of instances or negatives, or of another size.
    """
    check_sizes(rows, classifier)
    count = classifier.num_replicas
    ring, head = slots_of_replicas(rows.ring, rows.head, count, classifier.slots)
    if here is not None:
        # Views until another row takes a slot.
        views = (np.arange(classifier.slots) - head) % classifier.slots
        for recent, numbers, until in zip(ring, here, stay):
            by_number = np.argsort(numbers)
            rank = np.searchsorted(numbers, recent // count, sorter=by_number)
            found = by_number[np.minimum(rank, len(numbers) - 1)]
            recent[(numbers[found] != recent // count) | (views >= until[found])] = EMPTY

    @tf.function(autograph=False, reduce_retracing=True)
    def rest(numbers: tf.Tensor, weights: tf.Tensor, momentum: tf.Tensor, stamp: tf.Tensor) -> None:
        """Write row numbers [m, R] of every replica to its store; values [m, R, ...]."""

        def on_replica() -> None:
            tables = (numbers, weights, momentum, stamp)
            own, *values = (tf.gather(x, collectives.index(), axis=1) for x in tables)
            visited = values[-1] != 0  # the others are as they began
            classifier.store.write(tf.where(visited, own, EMPTY), *values)

        strategy.run(on_replica)

    @tf.function(autograph=False)
    def fill(first: tf.Tensor, ids: tf.Tensor, weights: tf.Tensor, momentum: tf.Tensor) -> None:
        """Fill slots of every replica from `first` on; values [R, slots, ...]."""

        def on_replica() -> None:
            slots, replica = first + tf.range(ids.shape[1], dtype=tf.int64), collectives.index()
            collectives.scatter_rows(classifier.ids, slots, ids[replica])
            collectives.scatter_rows(classifier.weights_ring, slots, weights[replica])
            collectives.scatter_rows(classifier.momentum_ring, slots, momentum[replica])

        strategy.run(on_replica)

    tables = rows.weights, rows.momentum, rows.stamp
    if classifier.store is not None:
        for numbers in all_rows(classifier) if here is None else parts(here):
            at = rows.index(np.maximum(numbers, 0) * count + np.arange(count))
            at = np.where(numbers < 0, 0, at)
            rest(tf.constant(numbers), *(tf.constant(table[at]) for table in tables))
    each = max(BLOCK // count, 1)
    for first in range(0, classifier.slots, each):
        ids = ring[:, first : first + each]
        live = (ids >= 0)[..., None]
        at = rows.index(np.maximum(ids, 0))
        weights, momentum = (np.where(live, table[at], np.float32(0)) for table in tables[:2])
        fill(tf.constant(first, tf.int64), *map(tf.constant, (ids, weights, momentum)))
    classifier.head.assign(head)


def slots_of_replicas(
    ring: np.ndarray, head: int, count: int, slots: int
) -> tuple[np.ndarray, int]:
    """Share the ring out among replicas.

    Args:
      ring: int64 [K], ids by slot, -1 for an empty one.
      head: the oldest slot.
      count: R, replicas.
      slots: of each replica.

    Returns:
      (int64 [R, slots], the oldest slot of each).
    """
    shared = np.full([count, slots], -1, np.int64)
    used = np.flatnonzero(ring >= 0)
    fits = head % count == 0 and np.all(used < count * slots)
    if fits and np.all(ring[used] % count == used % count):
        shared[used % count, used // count] = ring[used]
        return shared, head // count
    by_age = np.roll(ring, -head)
    for replica in range(count):
        own = by_age[(by_age >= 0) & (by_age % count == replica)][-slots:]
        shared[replica, slots - len(own) :] = own
    return shared, 0
