"""All instance rows in one form that does not depend on the number of replicas, for checkpoints."""

import dataclasses

import numpy as np
import tensorflow as tf

from pic_tf import replicas
from pic_tf.instances.classifier import InstanceClassifier

_NOBODY = np.int64(-1)
_BLOCK = 65536  # rows that cross between host and device at once, over all replicas


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """The rows of all N instances, wherever they are, and the ring.

    Slot p of replica r is slot p R + r here, so with the same R, or a divisor of it, every row returns to its
    slot. With another R a replica takes its instances from the newest on until its slots are full; what finds
    no place rests in the store.

    Attributes:
      weights: float32 [N, D], w.
      momentum: float32 [N, D], u.
      stamp: int64 [N], updates applied when the row was as it is here.
      ring: int64 [slots of all replicas], whose rows are recent, -1 for an empty slot.
      head: the oldest slot of the ring.
    """

    weights: np.ndarray
    momentum: np.ndarray
    stamp: np.ndarray
    ring: np.ndarray
    head: int


def collect(classifier: InstanceClassifier, step: int, strategy: tf.distribute.Strategy) -> Rows:
    """Copy all rows to the host; every worker has to call it.

    Args:
      classifier: the layer.
      step: updates applied so far.
      strategy: in whose scope it was made.

    Returns:
      The rows.
    """
    n, count, slots = classifier.num_instances, classifier.num_replicas, classifier.slots
    weights, momentum = (np.empty([n, classifier.embedding_dim], np.float32) for _ in range(2))
    stamp = np.full([n], step, np.int64)

    @tf.function
    def gathered(read, rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """What `read` gives for the same rows of every replica, [rows R, ...], row by row, then replica by replica."""

        def on_replica():
            if count == 1:
                return read(rows)
            interleaved = [replicas.all_gather(x[None]) for x in read(rows)]
            return [
                tf.reshape(tf.transpose(x, [1, 0, *range(2, x.shape.rank)]), [-1, *x.shape[2:]]) for x in interleaved
            ]

        return [strategy.experimental_local_results(x)[0] for x in strategy.run(on_replica)]

    def ring(rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
        variables = classifier.ids, classifier.weights_ring, classifier.momentum_ring
        return tuple(replicas.gather_rows(variable, rows) for variable in variables)

    def blocks(size: int):
        each = max(_BLOCK // count, 1)
        return (tf.range(first, min(first + each, size), dtype=tf.int64) for first in range(0, size, each))

    if classifier.store is not None:
        own = -(-n // count)
        for rows in blocks(own):
            first = int(rows[0]) * count
            last = min(first + len(rows) * count, n)
            for table, values in zip((weights, momentum, stamp), gathered(classifier.store.read, rows)):
                table[first:last] = values[: last - first]
    ids = []
    for rows in blocks(slots):
        whose, w, u = (x.numpy() for x in gathered(ring, rows))
        live = whose >= 0
        weights[whose[live]], momentum[whose[live]], stamp[whose[live]] = w[live], u[live], step
        ids.append(whose)
    # Equal in all replicas; read across them it is the first one's.
    return Rows(weights, momentum, stamp, np.concatenate(ids), int(classifier.head.numpy()) * count)


def norms(instance_ids: np.ndarray, classifier: InstanceClassifier, strategy: tf.distribute.Strategy) -> np.ndarray:
    """Norms of some rows, of resting ones as they were when they left; every worker has to call it.

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
            own = ids % classifier.num_replicas == replicas.index()
            is_slot = classifier.ids[None] == ids[:, None]  # bool [n, K / R]
            rows = replicas.gather_rows(classifier.weights_ring, tf.argmax(is_slot, axis=1))
            if classifier.store is not None:
                resting, *_ = classifier.store.read(ids // classifier.num_replicas)
                rows = tf.where(tf.reduce_any(is_slot, axis=1)[:, None], rows, resting)
            return replicas.all_sum(tf.where(own, tf.norm(rows, axis=1), 0.0))

        return strategy.experimental_local_results(strategy.run(on_replica))[0]

    return norms_of(tf.constant(instance_ids, tf.int64)).numpy()


def place(rows: Rows, classifier: InstanceClassifier, strategy: tf.distribute.Strategy) -> None:
    """Put rows where they belong, whatever the number of replicas they come from.

    Args:
      rows: as `collect` gave them.
      classifier: the layer.
      strategy: in whose scope it was made.

    Raises:
      ValueError: for rows of another number of instances or negatives, or of another size.
    """
    expected = (classifier.num_instances, classifier.embedding_dim)
    if rows.weights.shape != expected:
        raise ValueError(f"expected rows {list(expected)}, got {list(rows.weights.shape)}")
    n, count = expected[0], classifier.num_replicas
    recent = min(len(rows.ring), n)  # with K = N the last slots may be empty
    if recent != classifier.num_negatives:
        raise ValueError(f"expected rows of {classifier.num_negatives} negatives, got rows of {recent}")
    ring, head = slots_of_replicas(rows.ring, rows.head, count, classifier.slots)

    @tf.function
    def rest(first: tf.Tensor, weights: tf.Tensor, momentum: tf.Tensor, stamp: tf.Tensor) -> None:
        """Rows first ... of every replica; values [rows, R, ...]."""

        def on_replica() -> None:
            own = [tf.gather(x, replicas.index(), axis=1) for x in (weights, momentum, stamp)]
            rows = first + tf.range(stamp.shape[0], dtype=tf.int64)
            classifier.store.write(tf.where(own[-1] > 0, rows, _NOBODY), *own)  # the others are as they began

        strategy.run(on_replica)

    @tf.function
    def go_round(first: tf.Tensor, ids: tf.Tensor, weights: tf.Tensor, momentum: tf.Tensor) -> None:
        """Slots first ... of every replica; values [R, slots, ...]."""

        def on_replica() -> None:
            slots = first + tf.range(ids.shape[1], dtype=tf.int64)
            for variable, values in zip(
                (classifier.ids, classifier.weights_ring, classifier.momentum_ring), (ids, weights, momentum)
            ):
                replicas.scatter_rows(variable, slots, values[replicas.index()])

        strategy.run(on_replica)

    each = max(_BLOCK // count, 1)
    if classifier.store is not None:
        for first in range(0, -(-n // count), each):
            part = slice(first * count, (first + each) * count)
            tables = [table[part] for table in (rows.weights, rows.momentum, rows.stamp)]
            missing = -len(tables[0]) % count  # some replicas own one instance less
            tables = [np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for x in tables]
            rest(tf.constant(first, tf.int64), *(tf.constant(x.reshape(-1, count, *x.shape[1:])) for x in tables))
    for first in range(0, classifier.slots, each):
        ids = ring[:, first : first + each]
        live = (ids >= 0)[..., None]
        weights, momentum = (np.where(live, table[ids], np.float32(0)) for table in (rows.weights, rows.momentum))
        go_round(tf.constant(first, tf.int64), *map(tf.constant, (ids, weights, momentum)))
    classifier.head.assign(head)


def slots_of_replicas(ring: np.ndarray, head: int, count: int, slots: int) -> tuple[np.ndarray, int]:
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
