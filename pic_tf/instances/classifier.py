"""Instance classifier: a ring of the instances of the last K visits before a store of all."""

import tensorflow as tf
import tf_keras as keras

from pic_tf.instances.first_weights import INITIAL_STDDEV, initialise
from pic_tf.instances.loss import SIMILARITIES, instance_softmax
from pic_tf.instances.mixing import Partners
from pic_tf.instances.norm_floor import default_floor, lift
from pic_tf.instances.store import EMPTY, Store
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.replicas import collectives

PAPER_NEGATIVES = 65536  # K for ImageNet
# What `admit` says of rows.
_MOVED = {
    "fetched": tf.bool,
    "returning": tf.bool,
    "norm": tf.float32,
    "gap": tf.int64,
    "floored": tf.bool,
}


@keras.utils.register_keras_serializable("pic_tf")
class InstanceClassifier(keras.layers.Layer):
    """Instance weights w [N, D] of which those of the last K visits take part in a step.

    An instance that recurs in them counts once, so fewer than K rows are live then.

    Those K rows and their momentum lie together in a ring, and every one of them gets the same
    dense update, so nothing of size K is gathered or scattered. A row leaves the ring for the store
    with the number of updates applied so far, and returns from it caught up with what it missed
    (`LazySGD.caught_up_rows`). All together equals SGD over the full table in which the gradient of
    every row outside the ring is 0.

    With K = N every row is always live: slot i is instance i, nothing moves, no store.

    Under a strategy with R replicas, replica r owns the instances with `id % R == r`: it must get
    only those, its store holds only their rows and its ring the last K / R of them. What crosses
    between replicas is embeddings and sums over the soft-max, nothing of size K or N
    (`instance_softmax`). Create the layer in the strategy's scope.

    Args:
      num_instances: N.
      embedding_dim: D.
      num_negatives: K, rows in the soft-max's denominator, the batch's own included; at least the
        batch size, at most N; a multiple of R, or N.
      temperature: tau.
      similarity: "cosine" or "dot".
      weight_correction: catch returning rows up (paper) or leave them as they left (its ablation).
      min_row_norm: a row fetched with a smaller norm is rescaled to it, momentum with it; 0 turns
        this off; None is the norm at initialisation, 0.01 sqrt(D), for cosines and off for dot
        products. A departure from the paper: a row that rested long enough shrinks to nothing, its
        cosine gradient grows as 1 / |w| and would throw it to a norm where it freezes. Cosine
        logits do not change.
      forget_after: a row that rested for more steps begins anew with its first weights, an ablation
        of the paper; 0 for never.
      label_smoothing: share of the target that all live rows have in common, see
        `instance_softmax`.
      seed: of the initial weights.
      rows_on_device: resting rows of a replica that are on its device at a time; a `Pager` brings
        those that the sliding window needs. None for all of them.

    Attributes, one of each in every replica:
      weights_ring: float32 [K / R, D], w.
      momentum_ring: float32 [K / R, D], u.
      ids: int64 [K / R], the instances of these rows, -1 for an empty slot.
      head: int64 scalar, the oldest slot, which the next batch takes over.
      store: the resting rows, or None where K = N.

    Raises:
      ValueError: for a value out of its range.

    Source: paper, Section 2.3; the norm floor is ours.
    """

    def __init__(
        self,
        num_instances: int,
        embedding_dim: int = 128,
        num_negatives: int = PAPER_NEGATIVES,
        temperature: float = 0.2,
        similarity: str = "cosine",
        weight_correction: bool = True,
        min_row_norm: float | None = None,
        forget_after: int = 0,
        label_smoothing: float = 0.0,
        seed: int = 0,
        rows_on_device: int | None = None,
        name: str = "instances",
    ):
        super().__init__(name=name, dtype="float32")  # whatever the precision of the backbone
        if not 1 <= num_negatives <= num_instances:
            raise ValueError(
                f"expected 1 <= num_negatives <= num_instances ({num_instances}), "
                f"got {num_negatives}: {num_instances} is the full soft-max"
            )
        if not temperature > 0:
            raise ValueError(f"expected temperature > 0, got {temperature}")
        if similarity not in SIMILARITIES:
            raise ValueError(f"expected similarity to be cosine or dot, got {similarity!r}")
        if min_row_norm is not None and min_row_norm < 0:
            raise ValueError(f"expected min_row_norm >= 0, got {min_row_norm}")
        if forget_after < 0:
            raise ValueError(f"expected forget_after >= 0, got {forget_after}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"expected 0 <= label_smoothing < 1, got {label_smoothing}")
        self.num_instances = num_instances
        self.embedding_dim = embedding_dim
        self.num_negatives = num_negatives
        self.temperature = temperature
        self.similarity = similarity
        self.weight_correction = weight_correction
        floor = default_floor(embedding_dim, similarity) if min_row_norm is None else min_row_norm
        self.min_row_norm = floor
        self.forget_after, self.label_smoothing = forget_after, label_smoothing
        self.seed = seed
        self.rows_on_device = rows_on_device

        collectives.check_only_strategy()
        self.num_replicas = collectives.count()
        if num_negatives % self.num_replicas and num_negatives != num_instances:
            multiple = max(num_negatives // self.num_replicas, 1) * self.num_replicas
            raise ValueError(
                f"expected num_negatives to be a multiple of the {self.num_replicas} replicas, "
                f"got {num_negatives}: use {multiple}"
            )
        full = num_negatives == num_instances
        if full and rows_on_device is not None:
            raise ValueError(
                "expected num_negatives < num_instances with rows_on_device, got all: "
                "no row rests then"
            )
        own = -(-num_instances // self.num_replicas)  # instances of a replica; one less in some
        self.slots = own if full else num_negatives // self.num_replicas
        paged, locations = rows_on_device is not None, rows_on_device or own
        self.store = None if full else Store(locations, embedding_dim, INITIAL_STDDEV, seed, paged)
        shape = [self.slots, embedding_dim]
        self.weights_ring = collectives.local_variable(lambda: tf.zeros(shape), "weights_ring")
        self.momentum_ring = collectives.local_variable(lambda: tf.zeros(shape), "momentum_ring")
        self.ids = collectives.local_variable(lambda: tf.fill([self.slots], EMPTY), "ids")
        self.head = collectives.local_variable(lambda: tf.constant(0, tf.int64), "head")
        if full:
            initialise(self.weights_ring, own, INITIAL_STDDEV, seed)
            collectives.run(self._fill_slots)

    def admit(
        self, instance_ids: tf.Tensor, optimizer: LazySGD
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Make the batch's rows the most recent ones.

        Hits move to the front of the ring, misses come from the store, the oldest rows go there.

        Args:
          instance_ids: int64 [b], this replica's own ids in [0, N), b <= K / R, as `checks` checks;
            one that comes twice gets one slot, and -1 one that stays empty.
          optimizer: catches returning rows up.

        Returns:
          slots int64 [b], the slot of each id's row; and what happened to the rows, of each:
          `fetched` bool [b], it came from the store; `returning` bool [b], and had been in the ring
          before; `norm` float32 [b], before the floor; `gap` int64 [b], updates it missed;
          `floored` bool [b], returning, not forgotten, and lifted by the floor. All are of length
          0 where K = N, where no row ever moves.

        Source: paper, Section 2.3 and Eq. 3.
        """
        if self.store is None:
            nothing = {name: tf.zeros([0], dtype) for name, dtype in _MOVED.items()}
            return tf.maximum(instance_ids, 0) // self.num_replicas, nothing
        size = tf.shape(instance_ids, out_type=tf.int64)[0]
        batch = tf.sort(instance_ids)
        new = tf.concat([[True], batch[1:] != batch[:-1]], axis=0)
        first = new & (batch >= 0)  # no repetition, nor an empty place
        slots = (self.head + tf.range(size)) % self.slots  # the oldest; batch[i] moves to slots[i]

        # Where the ring has the batch's ids: each slot looks itself up among the b sorted ids.
        ids = tf.identity(self.ids)
        rank = tf.minimum(tf.searchsorted(batch, ids, out_type=tf.int64), size - 1)
        revisited = (tf.gather(batch, rank) == ids) & (ids >= 0)  # bool [K]
        slot_numbers = tf.range(self.slots, dtype=tf.int64)
        found = tf.math.unsorted_segment_max(tf.where(revisited, slot_numbers, EMPTY), rank, size)
        hit = found >= 0
        found = tf.maximum(found, 0)
        hit_weights = collectives.gather_rows(self.weights_ring, found)
        hit_momentum = collectives.gather_rows(self.momentum_ring, found)

        leaving = tf.where(tf.gather(revisited, slots), EMPTY, tf.gather(ids, slots))
        self.store.write(
            leaving // self.num_replicas,  # -1 stays -1
            collectives.gather_rows(self.weights_ring, slots),
            collectives.gather_rows(self.momentum_ring, slots),
            tf.identity(optimizer.iterations),
        )
        weights, momentum, since = self.store.read(batch // self.num_replicas)
        if self.weight_correction:
            weights, momentum = optimizer.caught_up_rows(weights, momentum, since)
        fetched = first & ~hit
        returning = fetched & (since != 0)
        gap = optimizer.iterations - tf.maximum(since, 0)
        aged = returning
        if self.forget_after:
            forgotten = returning & (gap > self.forget_after)
            aged = returning & ~forgotten
            first_weights = tf.cast(self.store.first_weights(batch), weights.dtype)
            weights = tf.where(forgotten[:, None], first_weights, weights)
            momentum = tf.where(forgotten[:, None], tf.zeros_like(momentum), momentum)
        lifted = lift(weights, momentum, self.min_row_norm)

        self.ids.assign(tf.where(revisited, EMPTY, ids))
        collectives.scatter_rows(self.ids, slots, tf.where(first, batch, EMPTY))
        weights = tf.where(hit[:, None], hit_weights, lifted.weights)
        momentum = tf.where(hit[:, None], hit_momentum, lifted.momentum)
        collectives.scatter_rows(self.weights_ring, slots, weights)
        collectives.scatter_rows(self.momentum_ring, slots, momentum)
        self.head.assign((self.head + size) % self.slots)
        happened = {
            "fetched": fetched,
            "returning": returning,
            "norm": lifted.norm,
            "gap": gap,
            "floored": aged & lifted.short,
        }
        return tf.gather(slots, tf.searchsorted(batch, instance_ids)), happened

    def call(
        self,
        embedding: tf.Tensor,
        weights: tf.Tensor,
        slots: tf.Tensor,
        partners: Partners | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Loss and accuracy of each view against the live rows of all replicas.

        Args:
          embedding: float [b, D].
          weights: float32 [K / R, D], the ring's weights, a tensor so that it can be watched.
          slots: int64 [b] from `admit`.
          partners: second images of mixed views; None without any.

        Returns:
          loss float32 [b], correct bool [b].

        Source: paper, Eq. 1 with the recent negatives of Section 2.3.
        """
        live = self.ids >= 0
        kind = self.temperature, self.similarity, self.label_smoothing
        return instance_softmax(embedding, weights, slots, live, *kind, partners)

    def apply_gradient(self, gradient: tf.Tensor, weights: tf.Tensor, optimizer: LazySGD) -> None:
        """Eq. 2 for the ring's rows, after the optimizer's own `apply_gradients` of the step.

        Args:
          gradient: float32 [K / R, D] with respect to `weights`.
          weights: float32 [K / R, D], the ring's weights as the loss saw them.
          optimizer: has rate, momentum and weight decay.
        """
        optimizer.update(gradient, weights, self.weights_ring, self.momentum_ring)

    def get_config(self) -> dict:
        names = "num_instances embedding_dim num_negatives temperature similarity "
        names += "weight_correction min_row_norm forget_after label_smoothing seed rows_on_device"
        return {"name": self.name} | {name: getattr(self, name) for name in names.split()}

    def checks(self, instance_ids: tf.Tensor) -> list[tf.Operation]:
        """Assertions on a batch of ids: a wrong one would spoil another instance's row."""
        n, count, size = self.num_instances, self.num_replicas, tf.size(instance_ids)
        low, high = tf.reduce_min(instance_ids), tf.reduce_max(instance_ids)
        wrong = tf.where(low < 0, low, high)
        expected = f"expected instance ids from 0 to {n - 1}, got"
        too_many = f"expected at most {self.slots} images a batch and replica, got"
        checks = [
            tf.debugging.Assert((low >= 0) & (high < n), [expected, wrong]),
            tf.debugging.Assert(size <= self.slots, [too_many, size]),
        ]
        if self.rows_on_device is not None:
            here = tf.reduce_all(self.store.has(instance_ids // count))
            expected = "expected ids of the window whose rows the pager has brought, got"
            checks.append(tf.debugging.Assert(here, [expected, instance_ids]))
        if count > 1:
            expected = f"expected ids with id % {count} == r in replica r (see pic_tf.distribute); "
            expected += "got, in replica"
            own = tf.reduce_all(instance_ids % count == collectives.index())
            checks.append(tf.debugging.Assert(own, [expected, collectives.index(), instance_ids]))
        return checks

    def _fill_slots(self) -> None:
        """Fill slot l with instance l R + r for good, where K = N; the last may stay empty."""
        ids = tf.range(self.slots, dtype=tf.int64) * self.num_replicas + collectives.index()
        self.ids.assign(tf.where(ids < self.num_instances, ids, EMPTY))
