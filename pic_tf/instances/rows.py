"""Instance rows in one form that does not depend on the number of replicas, for checkpoints."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from pic_tf.instances.classifier import InstanceClassifier
from pic_tf.instances.store import BEFORE_FIRST_UPDATE, EMPTY
from pic_tf.replicas import collectives

BLOCK = 65536  # rows that cross between host and device at once, over all replicas


@dataclasses.dataclass(frozen=True, eq=False)
class RowSnapshot:
    """Rows of instances, wherever they are, and the ring.

    Rows of all N instances; or, where the others lie on disk, of the n instances on the devices.

    Slot p of replica r is slot p R + r here, so with the same R, or a divisor of it, every row
    returns to its slot. With another R a replica takes its instances from the newest on until its
    slots are full; what finds no slot rests in the store.

    Attributes:
      weights: float32 [n, D], w.
      momentum: float32 [n, D], u.
      stamp: int64 [n], updates applied when the row was as it is here.
      ring: int64 [slots of all replicas], the recent instances, -1 for an empty slot.
      head: the oldest slot of the ring.
      instance_ids: int64 [n], the instances of these rows in ascending order; None for all.
    """

    weights: np.ndarray
    momentum: np.ndarray
    stamp: np.ndarray
    ring: np.ndarray
    head: int
    instance_ids: np.ndarray | None = None

    def index(self, instance_ids: np.ndarray) -> np.ndarray:
        """Find the rows of instances; any row for -1 and for an instance without a row here."""
        if self.instance_ids is None:
            return instance_ids
        index = np.searchsorted(self.instance_ids, instance_ids)
        return np.minimum(index, len(self.instance_ids) - 1)


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
      strategy: of the layer.
      here: where the store is paged, the row numbers on the device of each of all replicas, int64
        [m], -1 for none.

    Returns:
      The rows, of all instances, or of those `here`.
    """
    count, slots = classifier.num_replicas, classifier.slots
    instance_ids = None if here is None else ids_here(here)
    n = classifier.num_instances if here is None else len(instance_ids)
    weights, momentum = (np.empty([n, classifier.embedding_dim], np.float32) for _ in range(2))
    stamp = np.full([n], step, np.int64)
    state = RowSnapshot(weights, momentum, stamp, np.zeros(0, np.int64), 0, instance_ids)

    def interleaved(x: tf.Tensor) -> tf.Tensor:
        """Interleave values of replicas, [R, m, ...] -> [m R, ...]."""
        by_row = tf.transpose(x, [1, 0, *range(2, x.shape.rank)])
        return tf.reshape(by_row, [-1, *x.shape[2:]])

    @tf.function(autograph=False, reduce_retracing=True)
    def gathered(read, rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Call `read` for rows [m, R], a column a replica, and give [m R, ...] in this order."""

        def on_replica():
            own = read(tf.gather(rows, collectives.index(), axis=1))
            if count == 1:
                return own
            return [interleaved(collectives.all_gather(x[None])) for x in own]

        return [strategy.experimental_local_results(x)[0] for x in strategy.run(on_replica)]

    def ring(rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
        variables = classifier.ids, classifier.weights_ring, classifier.momentum_ring
        return tuple(collectives.gather_rows(variable, rows) for variable in variables)

    if classifier.store is not None:
        for rows in parts(here) if here is not None else all_rows(classifier):
            some = rows.reshape(-1) >= 0
            at = state.index(_ids(rows))
            resting = gathered(classifier.store.read, tf.constant(rows))
            for table, values in zip((weights, momentum, stamp), resting):
                table[at] = values.numpy()[some]
    recent, of_live = [], step
    if step == 0 and classifier.store is not None:  # another optimizer has moved them
        of_live = BEFORE_FIRST_UPDATE
    each = max(BLOCK // count, 1)
    for first in range(0, slots, each):
        rows = np.arange(first, min(first + each, slots))
        slots_of_all = tf.constant(np.repeat(rows[:, None], count, axis=1))
        ids, w, u = (x.numpy() for x in gathered(ring, slots_of_all))
        live = ids >= 0
        at = state.index(ids[live])
        weights[at], momentum[at], stamp[at] = w[live], u[live], of_live
        recent.append(ids)
    # The head is equal in all replicas; read across them it is the first one's.
    head = int(classifier.head.numpy()) * count
    return dataclasses.replace(state, ring=np.concatenate(recent), head=head)


def norms(
    instance_ids: np.ndarray, classifier: InstanceClassifier, strategy: tf.distribute.Strategy
) -> np.ndarray:
    """Measure norms of some rows, of resting ones as they left; every worker has to call it.

    Norms of rows on disk are NaN.

    Args:
      instance_ids: int64 [n].
      classifier: the layer.
      strategy: of the layer.

    Returns:
      float32 [n].
    """

    @tf.function(autograph=False)
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


def ids_here(here: list[np.ndarray]) -> np.ndarray:
    """List, in ascending order, instances of row numbers int64 [m] of each replica, -1 for none."""
    return np.sort(np.concatenate([_ids(rows) for rows in parts(here)]))


def all_rows(classifier: InstanceClassifier) -> Iterator[np.ndarray]:
    """Yield row numbers of all replicas, int64 [m, R], a part at a time; -1 past the last row."""
    n, count = classifier.num_instances, classifier.num_replicas
    each = max(BLOCK // count, 1)
    for first in range(0, -(-n // count), each):
        rows = np.arange(first, min(first + each, -(-n // count)))[:, None]
        yield np.where(rows * count + np.arange(count) < n, rows, EMPTY)


def parts(here: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield row numbers of some rows, int64 [m, R], a part at a time."""
    each = max(BLOCK // len(here), 1)
    for first in range(0, len(here[0]), each):
        yield np.stack([rows[first : first + each] for rows in here], axis=1)


def _ids(rows: np.ndarray) -> np.ndarray:
    """List the instances of row numbers [m, R] without -1, int64 [n]."""
    return (rows * rows.shape[1] + np.arange(rows.shape[1]))[rows >= 0]


def check_sizes(rows: RowSnapshot, classifier: InstanceClassifier) -> None:
    """Check that rows fit a classifier.

    Args:
      rows: as `snapshot` gave them.
      classifier: the layer.

    Raises:
      ValueError: for rows of another number of instances or negatives, or of another size.
    """
    n = classifier.num_instances if rows.instance_ids is None else len(rows.instance_ids)
    expected = [n, classifier.embedding_dim]
    if list(rows.weights.shape) != expected:
        raise ValueError(f"expected rows {expected}, got {list(rows.weights.shape)}")
    # With K = N the last slots may be empty.
    recent = min(len(rows.ring), classifier.num_instances)
    if recent != classifier.num_negatives:
        raise ValueError(
            f"expected rows of {classifier.num_negatives} negatives, got rows of {recent}"
        )
