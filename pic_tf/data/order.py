"""The order of visits: a sliding window over one permutation of the instances.

Paper, Section 2.2.
"""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

_PERMUTATION, _WINDOW = 0, 1  # which of the two shuffles a seed belongs to
PAPER_WINDOW = 131072  # W for ImageNet
_ROUNDS = 8  # TensorFlow's default of 4 leaves visible correlations between neighbours
VIRTUAL_SHARDS = 256  # a multiple of every usual number of replicas


@dataclasses.dataclass(frozen=True)
class SlidingWindow:
    """Instance ids of every step as a pure function of (seed, step), in O(1) memory.

    Window n holds the positions n*S ... n*S + W - 1 (mod N) of one global permutation, shuffled
    within the window; it is read in floor(W / B) whole batches, so no batch has an id twice.
    Successive windows share W - S positions. With W = S = N this is the usual epoch order.

    Over R replicas, replica r visits only the instances with `id % R == r`: its own permutation
    of them, its own W / R positions a window, B / R ids a step.

    With V virtual shards each shard v, the instances with `id % V == v`, has a permutation of its
    own, and replica r visits W / V positions a window of every shard with `v % R == r`. So a window
    holds the same instances for every R that divides V.

    The windows of a replica are pieces of an endless sequence of positions. With m = V / R shards,
    position p is number floor(p / m), modulo the size of the shard, in the replica's shard p mod m;
    window n has the W / R positions from n S / R on.

    Attributes:
      num_instances: N, the number of training images.
      batch_size: B, views a step over all replicas.
      window_size: W in instances; a multiple of B, or N.
      window_stride: S in instances, 1 <= S <= W.
      seed: any integer; chooses the permutation and every shuffle.
      replica: r, the replica with the visits of this object.
      num_replicas: R; divides B, and W and S unless W = N.
      virtual_shards: V, a multiple of R that divides W and S; 0 for one shard a replica.

    Raises:
      ValueError: at construction, where a size does not fit the others.

    Source: paper, Section 2.2 and Figure 2; defaults W = 131072, S = 16384 from Section 4.1.
    """

    num_instances: int
    batch_size: int
    window_size: int
    window_stride: int
    seed: int = 0
    replica: int = 0
    num_replicas: int = 1
    virtual_shards: int = 0

    def __post_init__(self) -> None:
        n, b, r = self.num_instances, self.batch_size, self.num_replicas
        w, s = self.window_size, self.window_stride
        if b < 1 or b > n:
            raise ValueError(
                f"expected 1 <= batch_size <= the number of instances ({n}), "
                f"got {b}: use a smaller one"
            )
        if not b <= w <= n:
            raise ValueError(
                f"expected batch_size ({b}) <= window_size <= number of instances ({n}), "
                f"got window_size {w}"
            )
        if not 1 <= s <= w:
            raise ValueError(f"expected 1 <= window_stride <= window_size ({w}), got {s}")
        if w % b and w != n:
            fitting = [x for x in (w // b * b, w // b * b + b) if x <= n]
            raise ValueError(
                f"expected window_size to be a multiple of batch_size ({b}), got {w}: "
                f"use {_alternatives(fitting)}"
            )
        if not 0 <= self.replica < r:
            raise ValueError(f"expected 0 <= replica < num_replicas ({r}), got {self.replica}")
        if b % r:
            fitting = [x for x in (b // r * r, b // r * r + r) if 0 < x <= n]
            raise ValueError(
                f"expected batch_size to be a multiple of num_replicas ({r}), got {b}: "
                f"use {_alternatives(fitting)}"
            )
        if s % r and s != n:
            fitting = [x for x in (s // r * r, s // r * r + r) if 0 < x <= w]
            raise ValueError(
                f"expected window_stride to be a multiple of num_replicas ({r}), got {s}: "
                f"use {_alternatives(fitting)}"
            )
        v = self.virtual_shards
        if v and (v < 0 or v % r or w % v or s % v):
            raise ValueError(
                f"expected virtual_shards to be a multiple of num_replicas ({r}) that divides "
                f"window_size ({w}) and window_stride ({s}), got {v}: use 0 for one shard a replica"
            )

    @property
    def steps_per_window(self) -> int:
        """Whole batches in a window, floor(W / B)."""
        return (self.window_size // self.num_replicas) // (self.batch_size // self.num_replicas)

    def instance_ids(self, step: tf.Tensor | int) -> tf.Tensor:
        """The ids visited at `step` by this replica.

        Args:
          step: scalar integer >= 0.

        Returns:
          int64 [B / R], each in [0, N), all different, all with `id % R == replica`.
        """
        return self.instances_at(self.positions(step))

    def instances_at(self, positions: tf.Tensor) -> tf.Tensor:
        """Look up the permutations: the instances at some positions.

        Args:
          positions: int64 [n], of this replica's endless sequence; it goes on below 0 too.

        Returns:
          int64 [n] ids.
        """
        shard = positions % len(self.shards)
        sizes, keys = tf.gather(self.shard_sizes, shard), tf.gather(self._keys, shard)
        rank = _shuffle(positions // len(self.shards) % sizes, sizes, keys)
        return rank * self.num_shards + tf.gather(self.shards, shard)

    def positions(self, step: tf.Tensor | int) -> tf.Tensor:
        """Positions in this replica's endless sequence of the ids visited at `step`.

        Args:
          step: scalar integer >= 0.

        Returns:
          int64 [B / R].
        """
        step, batch = tf.cast(step, tf.int64), self.batch_size // self.num_replicas
        n, k = step // self.steps_per_window, step % self.steps_per_window
        index = k * batch + tf.range(batch, dtype=tf.int64)
        window = tf.constant(self.own_window, tf.int64)
        key = _key(self.seed, _WINDOW, self.replica, n)
        return n * self.own_stride + _shuffle(index, window, key)

    @property
    def shards(self) -> np.ndarray:
        """int64 [m], this replica's shards: those that are r mod R."""
        return np.arange(self.replica, self.num_shards, self.num_replicas)

    @property
    def shard_sizes(self) -> np.ndarray:
        """int64 [m], numbers of instances in this replica's shards."""
        return -(-(self.num_instances - self.shards) // self.num_shards)

    @property
    def own_window(self) -> int:
        """This replica's positions in a window."""
        return self._share_of(self.window_size)

    @property
    def own_stride(self) -> int:
        """Positions by which this replica's window moves."""
        return self._share_of(self.window_stride)

    def _share_of(self, size: int) -> int:
        if size == self.num_instances:
            return int(self.shard_sizes.sum())
        return size // self.num_replicas

    @property
    def num_shards(self) -> int:
        """Shards of all replicas."""
        return self.virtual_shards or self.num_replicas

    @functools.cached_property
    def _keys(self) -> np.ndarray:
        """uint32 [m, 3], of the permutation of each shard."""
        with tf.init_scope():  # once, and not in the graph of every step
            keys = [_key(self.seed, _PERMUTATION, shard, 0) for shard in self.shards]
            return np.stack([key.numpy() for key in keys])


def _key(seed: int, stream: int, number: int, window: tf.Tensor | int) -> tf.Tensor:
    """uint32 [3], of one shuffle."""
    # Negative, where the crops draw from (seed, step). The op looks at the low 8 bits or so of its
    # seed only, so its three words are hashed from ours.
    key = tf.random.stateless_uniform(
        [2], [seed, -1 - stream - 2 * number], minval=None, maxval=None, dtype=tf.int64
    )
    key += tf.stack([tf.constant(0, tf.int64), tf.cast(window, tf.int64)])
    return tf.random.stateless_uniform([3], key, minval=None, maxval=None, dtype=tf.uint32)


def _shuffle(index: tf.Tensor, size: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Permute int64 [b] indices in [0, size); size int64 [] or [b], key uint32 [3] or [b, 3]."""
    # At size 4^k + 1 the op's blocks are one bit short and it is no permutation: take one of
    # size + 1 and walk past the number that is too large.
    last = size - 1
    short = (last >= 2**16) & (tf.bitwise.bitwise_and(last, last - 1) == 0)
    last += tf.cast(short, tf.int64)

    def shuffled(index: tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.RandomIndexShuffle(index=index, seed=key, max_index=last, rounds=_ROUNDS)

    once = shuffled(index)
    too_large = once == size
    return tf.cond(
        tf.reduce_any(too_large),
        lambda: tf.where(too_large, shuffled(once), once),
        lambda: once,
    )


def _alternatives(values: list[int]) -> str:
    return " or ".join(map(str, values)) or "fewer replicas"


def epoch_order(num_instances: int, batch_size: int, seed: int = 0) -> SlidingWindow:
    """Visit every instance once an epoch, reshuffled each epoch: the usual order (W = S = N).

    The last N mod B instances of each shuffle are left out of that epoch.

    Args:
      num_instances: N.
      batch_size: B, views a step.
      seed: any integer.

    Returns:
      A `SlidingWindow` with window and stride N.

    Source: paper, Table 4 (rows without sliding window).
    """
    return SlidingWindow(num_instances, batch_size, num_instances, num_instances, seed)


def default_window(num_instances: int, batch_size: int) -> tuple[int, int]:
    """Choose window and stride for a number of instances.

    W = min(131072, B 2^floor(log2(N / 2B))), the paper's window or at most half of a small data
    set, and S = W / 8 (majority ratio 87.5 %). Below 8 batches a data set is too small for
    windows and gets the epoch order W = S = N.

    Args:
      num_instances: N.
      batch_size: B, views a step.

    Returns:
      (W, S) in instances.

    Source: paper, Section 4.1 and Table 3; the rule for small N is ours.
    """
    if num_instances < 8 * batch_size:
        return num_instances, num_instances
    half = batch_size * 2 ** ((num_instances // (2 * batch_size)).bit_length() - 1)
    window = min(half, max(PAPER_WINDOW // batch_size, 1) * batch_size)
    return window, default_stride(window)


def default_shards(
    num_instances: int, window_size: int, window_stride: int, num_replicas: int = 1
) -> int:
    """Choose the number of virtual shards for a window.

    V = 256 where there are windows and it fits their sizes, so that another number of replicas goes
    on with the same ones; else 0.

    Args:
      num_instances: N.
      window_size: W.
      window_stride: S.
      num_replicas: R.

    Returns:
      V.
    """
    divides = window_size % VIRTUAL_SHARDS == 0 and window_stride % VIRTUAL_SHARDS == 0
    fits = divides and VIRTUAL_SHARDS % num_replicas == 0
    return VIRTUAL_SHARDS if fits and window_size < num_instances else 0


def default_stride(window_size: int) -> int:
    """S = W / 8: the paper's majority ratio of 87.5 % (Section 4.1)."""
    return max(window_size // 8, 1)
