"""Let resting rows follow another optimizer, and see that they fit the one they have."""

import tensorflow as tf

from pic_tf.instances.classifier import InstanceClassifier
from pic_tf.instances.store import EMPTY
from pic_tf.optim.lazy_sgd import LazySGD

_BLOCK = 65536  # rows that are caught up together


def hand_over(classifier: InstanceClassifier, before: LazySGD, after: LazySGD) -> None:
    """Catch resting rows up with what they missed, since another optimizer does not know of it.

    [w; u] <- M_{t-1} ... M_s [w; u] of the optimizer before (Eq. 3); from then on a row misses what
    the one after applies. Every row is read and written once. In the strategy's scope.

    Args:
      classifier: the rows.
      before: optimizer of all their updates so far.
      after: optimizer of those to come, which may have taken steps of its own.

    Raises:
      ValueError: for rows that are not on the device; nothing has changed.
    """
    store = classifier.store
    if store is None or not before.iterations.numpy() + after.iterations.numpy():
        return
    if store.paged:
        raise ValueError(
            "expected the LazySGD that these rows began with, got another one: rows that rest "
            "off the device cannot be caught up; change its learning rate instead"
        )

    @tf.function(autograph=False, reduce_retracing=True)
    def catch_up(rows: tf.Tensor) -> None:
        def on_replica() -> None:
            weights, momentum, stamp = store.read(rows)
            moved = tf.fill(tf.shape(stamp), True)
            if classifier.weight_correction:
                weights, momentum = before.caught_up_rows(weights, momentum, stamp)
            else:
                moved = stamp != 0
            weights, momentum = (tf.cast(x, tf.float32) for x in (weights, momentum))
            now = tf.identity(after.iterations)
            store.write(tf.where(moved, rows, EMPTY), weights, momentum, now)

        tf.distribute.get_strategy().run(on_replica)

    for first in range(0, store.num_locations, _BLOCK):
        last = min(first + _BLOCK, store.num_locations)
        catch_up(tf.range(first, last, dtype=tf.int64))


def check_stamps(
    classifier: InstanceClassifier, optimizer: LazySGD, strategy: tf.distribute.Strategy
) -> None:
    """Check that no row has left the ring at a step to come.

    Args:
      classifier: the rows.
      optimizer: counts the steps.
      strategy: of both.

    Raises:
      ValueError: where one has, so that the rows were trained with another optimizer, or the steps
        of this one were set back.
    """
    if classifier.store is None:
        return
    # The last row of a table takes what is written to none.
    stamps = strategy.experimental_local_results(classifier.store.stamp)
    latest = max(int(tf.reduce_max(stamp[:-1])) for stamp in stamps)
    step = int(optimizer.iterations.numpy())
    if latest > step:
        raise ValueError(
            f"expected the LazySGD that these rows were trained with, got one at step {step} for "
            f"rows that have rested since step {latest}: load the optimizer with the rows (a model "
            "that is compiled, from all of a file), and leave its `iterations` as they are"
        )
