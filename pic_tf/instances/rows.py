"""Instance rows in one form that does not depend on the number of replicas, for checkpoints."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from pic_tf.instances.classifier import InstanceClassifier
from pic_tf.instances.store import EMPTY
from pic_tf.replicas import collectives

_BLOCK = 65536  # rows that cross between host and device at once, over all replicas


@dataclasses.dataclass(frozen=True, eq=False)
class RowSnapshot:
    """The rows of instances, wherever they are, and the ring.

    They are those of all N instances; or, where the others lie on disk, of the n instances whose
    rows are on the devices.

    Slot p of replica r is slot p R + r here, so with the same R, or a divisor of it, every row
    returns to its slot. With another R a replica takes its instances from the newest on until its
    slots are full; what finds no slot rests in the store.

    Attributes:
      weights: float32 [n, D], w.
      momentum: float32 [n, D], u.
      stamp: int64 [n], updates applied when the row was as it is here.
      ring: int64 [slots of all replicas], whose rows are recent, -1 for an empty slot.
      head: the oldest slot of the ring.
      instance_ids: int64 [n] in ascending order, whose rows these are; None for all.
    """

    weights: np.ndarray
    momentum: np.ndarray
    stamp: np.ndarray
    ring: np.ndarray
    head: int
    instance_ids: np.ndarray | None = None

    def index(self, instance_ids: np.ndarray) -> np.ndarray:
        """Find the rows of these instances; of an instance whose row is not here, and of -1,
        anything.
        """
        if self.instance_ids is None:
            return instance_ids
        return np.minimum(
            np.searchsorted(self.instance_ids, instance_ids), len(self.instance_ids) - 1
        )


def snapshot(
    classifier: InstanceClassifier,
    step: int,
    strategy: tf.distribute.Strategy,
    here: list[np.ndarray] | None = None,
) -> RowSnapshot:
    """Copy the rows of the devices to the host; every worker has to call it.

    Args:
      classifier: the layer.
      step: updates applied so far.
      strategy: in whose scope it was made.
      here: where the store is paged, the row numbers on the device of each of all replicas, int64
        [m], -1 for none.

    Returns:
      The rows, of all instances, or of those `here`.
    """
    count, slots = classifier.num_replicas, classifier.slots
    instance_ids = None if here is None else ids_here(here)
    n, dim = (
        classifier.num_instances if here is None else len(instance_ids),
        classifier.embedding_dim,
    )
    weights, momentum = (np.empty([n, dim], np.float32) for _ in range(2))
    stamp = np.full([n], step, np.int64)
    state = RowSnapshot(weights, momentum, stamp, np.zeros(0, np.int64), 0, instance_ids)

    @tf.function(reduce_retracing=True)
    def gathered(read, rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Call `read` for rows [m, R], a column a replica: [m R, ...], row by row, then replica
        by replica.
        """

        def on_replica():
            own = read(tf.gather(rows, collectives.index(), axis=1))
            if count == 1:
                return own
            interleaved = [collectives.all_gather(x[None]) for x in own]
            return [
                tf.reshape(tf.transpose(x, [1, 0, *range(2, x.shape.rank)]), [-1, *x.shape[2:]])
                for x in interleaved
            ]

        return [strategy.experimental_local_results(x)[0] for x in strategy.run(on_replica)]

    def ring(rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
        variables = classifier.ids, classifier.weights_ring, classifier.momentum_ring
        return tuple(collectives.gather_rows(variable, rows) for variable in variables)

    if classifier.store is not None:
        for rows in _parts(here) if here is not None else _all_rows(classifier):
            some = rows.reshape(-1) >= 0
            at = state.index(_ids(rows))
            for table, values in zip(
                (weights, momentum, stamp), gathered(classifier.store.read, tf.constant(rows))
            ):
                table[at] = values.numpy()[some]
    whose = []
    each = max(_BLOCK // count, 1)
    for first in range(0, slots, each):
        rows = np.arange(first, min(first + each, slots))
        ids, w, u = (
            x.numpy() for x in gathered(ring, tf.constant(np.repeat(rows[:, None], count, axis=1)))
        )
        live = ids >= 0
        at = state.index(ids[live])
        weights[at], momentum[at], stamp[at] = w[live], u[live], step
        whose.append(ids)
    # Equal in all replicas; read across them it is the first one's.
    return dataclasses.replace(
        state, ring=np.concatenate(whose), head=int(classifier.head.numpy()) * count
    )


def ids_here(here: list[np.ndarray]) -> np.ndarray:
    """int64 [n] in ascending order, the instances of row numbers of each replica, int64 [m], -1
    for none.
    """
    return np.sort(np.concatenate([_ids(rows) for rows in _parts(here)]))


def _all_rows(classifier: InstanceClassifier) -> Iterator[np.ndarray]:
    """Row numbers of all replicas, int64 [m, R], a part at a time; -1 where a replica has one
    row less.
    """
    n, count = classifier.num_instances, classifier.num_replicas
    each = max(_BLOCK // count, 1)
    for first in range(0, -(-n // count), each):
        rows = np.arange(first, min(first + each, -(-n // count)))[:, None]
        yield np.where(rows * count + np.arange(count) < n, rows, EMPTY)


def _parts(here: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Row numbers of some rows, int64 [m, R], a part at a time."""
    each = max(_BLOCK // len(here), 1)
    for first in range(0, len(here[0]), each):
        yield np.stack([rows[first : first + each] for rows in here], axis=1)


def _ids(rows: np.ndarray) -> np.ndarray:
    """int64 [n], the instances of row numbers [m, R] without -1."""
    return (rows * rows.shape[1] + np.arange(rows.shape[1]))[rows >= 0]


def norms(
    instance_ids: np.ndarray, classifier: InstanceClassifier, strategy: tf.distribute.Strategy
) -> np.ndarray:
    """Norms of some rows, of resting ones as they were when they left; every worker has to call it.

    NaN for rows that are on disk.

    Args:
      instance_ids: int64 [n].
      classifier: the layer.
      strategy: in whose scope it was made.

    Returns:
      float32 [n].
    """

    @tf.function
    def norms_of(ids: tf.Tensor) -> tf.Tensor:
        def on_replica() -> tf.Tensor:
            own = ids % classifier.num_replicas == collectives.index()
            is_slot = classifier.ids[None] == ids[:, None]  # bool [n, K / R]
            rows = collectives.gather_rows(classifier.weights_ring, tf.argmax(is_slot, axis=1))
            if classifier.store is not None:
                resting, *_ = classifier.store.read(ids // classifier.num_replicas)
                live = tf.reduce_any(is_slot, axis=1)
                here = live | classifier.store.has(ids // classifier.num_replicas)
                rows = tf.where(live[:, None], rows, tf.where(here[:, None], resting, np.nan))
            return collectives.all_sum(tf.where(own, tf.norm(rows, axis=1), 0.0))

        return strategy.experimental_local_results(strategy.run(on_replica))[0]

    return norms_of(tf.constant(instance_ids, tf.int64)).numpy()


def restore(
    rows: RowSnapshot,
    classifier: InstanceClassifier,
    strategy: tf.distribute.Strategy,
    here: list[np.ndarray] | None = None,
    stay: list[np.ndarray] | None = None,
) -> None:
    """Put rows where they belong, whatever the number of replicas they come from.

    A row of the ring that is not among those `here`, or would leave the device before the ring,
    rests: in the order of visits that these belong to there is none, but the rows may come from
    another one.

    Args:
      rows: as `snapshot` gave them.
      classifier: the layer.
      strategy: in whose scope it was made.
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
        views = (
            np.arange(classifier.slots) - head
        ) % classifier.slots  # until a slot is taken by another row
        for recent, numbers, until in zip(ring, here, stay):
            by_number = np.argsort(numbers)
            rank = np.searchsorted(numbers, recent // count, sorter=by_number)
            found = by_number[np.minimum(rank, len(numbers) - 1)]
            recent[(numbers[found] != recent // count) | (views >= until[found])] = EMPTY

    @tf.function(reduce_retracing=True)
    def rest(numbers: tf.Tensor, weights: tf.Tensor, momentum: tf.Tensor, stamp: tf.Tensor) -> None:
        """Row numbers [m, R] of every replica; values [m, R, ...]."""

        def on_replica() -> None:
            own, *values = (
                tf.gather(x, collectives.index(), axis=1)
                for x in (numbers, weights, momentum, stamp)
            )
            classifier.store.write(
                tf.where(values[-1] > 0, own, EMPTY), *values
            )  # the others are as they began

        strategy.run(on_replica)

    @tf.function
    def go_round(first: tf.Tensor, ids: tf.Tensor, weights: tf.Tensor, momentum: tf.Tensor) -> None:
        """Slots first ... of every replica; values [R, slots, ...]."""

        def on_replica() -> None:
            slots = first + tf.range(ids.shape[1], dtype=tf.int64)
            for variable, values in zip(
                (classifier.ids, classifier.weights_ring, classifier.momentum_ring),
                (ids, weights, momentum),
            ):
                collectives.scatter_rows(variable, slots, values[collectives.index()])

        strategy.run(on_replica)

    tables = rows.weights, rows.momentum, rows.stamp
    if classifier.store is not None:
        for numbers in _all_rows(classifier) if here is None else _parts(here):
            at = rows.index(np.maximum(numbers, 0) * count + np.arange(count))
            at = np.where(numbers < 0, 0, at)
            rest(tf.constant(numbers), *(tf.constant(table[at]) for table in tables))
    each = max(_BLOCK // count, 1)
    for first in range(0, classifier.slots, each):
        ids = ring[:, first : first + each]
        live = (ids >= 0)[..., None]
        at = rows.index(np.maximum(ids, 0))
        weights, momentum = (np.where(live, table[at], np.float32(0)) for table in tables[:2])
        go_round(tf.constant(first, tf.int64), *map(tf.constant, (ids, weights, momentum)))
    classifier.head.assign(head)


def check_sizes(rows: RowSnapshot, classifier: InstanceClassifier) -> None:
    """See that rows fit a classifier.

    Args:
      rows: as `snapshot` gave them.
      classifier: the layer.

    Raises:
      ValueError: for rows of another number of instances or negatives, or of another size.
    """
    n = classifier.num_instances
    expected = (
        n if rows.instance_ids is None else len(rows.instance_ids),
        classifier.embedding_dim,
    )
    if rows.weights.shape != expected:
        raise ValueError(f"expected rows {list(expected)}, got {list(rows.weights.shape)}")
    recent = min(len(rows.ring), n)  # with K = N the last slots may be empty
    if recent != classifier.num_negatives:
        raise ValueError(
            f"expected rows of {classifier.num_negatives} negatives, got rows of {recent}"
        )


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
