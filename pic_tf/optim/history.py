"""Products of update matrices between any two steps, exact for any learning rates."""

import numpy as np
import tensorflow as tf

from pic_tf.replicas import collectives


class ProductHistory(tf.Module):
    """M_{t-1} ... M_s for any recorded s <= t, from a tree of dyadic products.

    Level l holds one product for every block of 2^l steps, so a new matrix changes one slot a
    level (`P[l, t >> l] <- M_t P[l, t >> l]`) and a query multiplies at most two blocks a level.
    The tree grows with training, hence holds for any learning-rate history, callbacks included.
    Prefix products would be shorter, but det M = m^t underflows and their inverse is lost.

    Args:
      capacity: T, the largest number of matrices; they take 64 T bytes.

    Attributes:
      products: float64 variable [about 2 T, 2, 2], level after level.

    Raises:
      ValueError: for a capacity below 1.
    """

    def __init__(self, capacity: int):
        super().__init__(name="history")
        if capacity < 1:
            raise ValueError(f"expected capacity >= 1 step, got {capacity}")
        self.capacity = capacity
        self._first = _first_blocks(capacity)
        self.levels = len(self._first) - 1
        identity = tf.eye(2, batch_shape=[int(self._first[-1])], dtype=tf.float64)
        # Every replica keeps its own: they are equal, and nothing has to cross to keep them so.
        self.products = collectives.local_variable(lambda: identity, "products")

    def record(self, step: tf.Tensor, matrix: tf.Tensor) -> None:
        """Append the matrix of one update.

        Args:
          step: int64 scalar t: how many updates were applied before this one.
          matrix: float64 [2, 2], M_t.
        """
        with tf.control_dependencies([self._check(step)]):
            levels = tf.range(self.levels, dtype=tf.int64)
            blocks = self._first[:-1] + tf.bitwise.right_shift(step, levels)
        products = matrix @ collectives.gather_rows(self.products, blocks)
        collectives.scatter_rows(self.products, blocks, products)

    def between(self, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        """Multiply M_{end-1} ... M_start.

        Args:
          start: int64 [n], 0 <= start <= end.
          end: int64 scalar, at most the number of recorded steps.

        Returns:
          float64 [n, 2, 2]; the identity where start = end.
        """
        blocks, taken = self._cover(start, end)
        factors = collectives.gather_rows(self.products, tf.where(taken, blocks, 0))
        return _multiply(factors, taken)

    def _cover(self, start: tf.Tensor, end: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Find the blocks that steps `start` to `end` consist of, in the order of time.

        At most two a level. Up: the odd block of a level, so that what follows is aligned for the
        next level. Then down: the binary digits of what is left.

        Returns:
          (blocks int64 [2 levels, n], taken bool [2 levels, n]).
        """
        levels = tf.range(self.levels, dtype=tf.int64)[:, None]
        lengths = tf.bitwise.left_shift(tf.constant(1, tf.int64), levels)
        up = tf.bitwise.right_shift(start + lengths - 1, levels)  # ceil(start / 2^l)
        # Where a block does not fit, longer ones do not either.
        taken_up = _odd(up) & (tf.bitwise.left_shift(up + 1, levels) <= end)
        left = end - start - tf.reduce_sum(tf.where(taken_up, lengths, 0), axis=0)
        digits = tf.bitwise.right_shift(left, levels)
        down = tf.bitwise.right_shift(end - left, levels) + digits - 1
        first = tf.constant(self._first[:-1])[:, None]
        blocks = tf.concat([first + up, tf.reverse(first + down, axis=[0])], axis=0)
        return blocks, tf.concat([taken_up, tf.reverse(_odd(digits), axis=[0])], axis=0)

    def _check(self, step: tf.Tensor) -> tf.Operation:
        """Refuse a step for which there is no room."""
        message = f"expected at most {self.capacity} updates, got one more: "
        message += "create LazySGD with a larger max_updates"
        return tf.debugging.assert_less(step, tf.constant(self.capacity, tf.int64), message)


def _odd(number: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.bitwise.bitwise_and(number, 1), tf.bool)


def _multiply(factors: tf.Tensor, taken: tf.Tensor) -> tf.Tensor:
    """Multiply F_{m-1} ... F_0, neighbours first.

    A tree has log2(m) steps, and each number of the matrices is a tensor of its own: a product of
    so small matrices costs more than its arithmetic, on CPUs as on accelerators.

    Args:
      factors: float64 [m, n, 2, 2].
      taken: bool [m, n]; the identity stands for a factor that is not taken.

    Returns:
      float64 [n, 2, 2].
    """
    m, numbers = (
        factors.shape[0],
        tf.unstack(tf.reshape(factors, [factors.shape[0], -1, 4]), axis=2),
    )
    identity = np.eye(2).reshape(4)
    numbers = [tf.where(taken, number, one) for number, one in zip(numbers, identity)]
    while m > 1:
        pairs = m // 2
        halves = [tf.reshape(x[: 2 * pairs], [pairs, 2, -1]) for x in numbers]
        (a, b, c, d), (e, f, g, h) = ([x[:, i] for x in halves] for i in (1, 0))
        products = [a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h]
        last = [x[2 * pairs :] for x in numbers]  # of an odd number
        numbers = [tf.concat(x, axis=0) for x in zip(products, last)] if m % 2 else products
        m -= pairs
    return tf.reshape(tf.stack([x[0] for x in numbers], axis=1), [-1, 2, 2])


def resized(products: np.ndarray, capacity: int, new_capacity: int, steps: int) -> np.ndarray:
    """Move products to a history that has room for more matrices, or for fewer.

    Args:
      products: float64 [about 2 T, 2, 2], `ProductHistory.products`.
      capacity: T.
      new_capacity: the largest number of matrices from now on.
      steps: number of matrices recorded so far.

    Returns:
      float64 [about 2 new T, 2, 2].

    Raises:
      ValueError: where there is no room for the recorded steps, or the products are not those of T
        matrices.
    """
    first, new_first = _first_blocks(capacity), _first_blocks(new_capacity)
    if steps > new_capacity:
        raise ValueError(f"expected room for the {steps} steps recorded, got {new_capacity}")
    if len(products) != first[-1]:
        raise ValueError(
            f"expected {first[-1]} products of a history of {capacity} steps, got {len(products)}"
        )
    result = np.tile(np.eye(2), (new_first[-1], 1, 1))
    for level in range(len(new_first) - 1):
        # Above the old levels the first block is that of the last old one: everything.
        old = min(level, len(first) - 2)
        begin, new_begin = first[old], new_first[level]
        blocks = min(first[old + 1] - begin, new_first[level + 1] - new_begin)
        result[new_begin : new_begin + blocks] = products[begin : begin + blocks]
    return result


def _first_blocks(capacity: int) -> np.ndarray:
    """Number the first block of each level, of ceil(T / 2^l) blocks, int64 [levels + 1]."""
    levels = (capacity - 1).bit_length() + 1
    sizes = [-(-capacity >> level) for level in range(levels)]
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
