"""Make a PIC step without a backbone, for the benchmarks, on one replica or several."""

if __name__ == "__main__":
    raise SystemExit("error: expected python tools/benchmark, got a part of it: see its --help")

import dataclasses
from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

from pic_tf import PIC, LazySGD, SlidingWindow, WarmupCosine

TRAINING_STEPS = 1_000_000  # length of the learning-rate schedule and of the optimizer's history
TEMPERATURE = 0.2


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of all variants.

    Attributes:
      batch_size: B, views a step over all replicas.
      embedding_dim: D.
      num_negatives: K, recent instances in the soft-max.
    """

    batch_size: int
    embedding_dim: int
    num_negatives: int


class GivenEmbedding(keras.layers.Layer):
    """Trainable [B / R, D] in place of backbone and projection head."""

    def build(self, input_shape: tf.TensorShape) -> None:
        self.embedding = self.add_weight(
            "embedding", input_shape, initializer=keras.initializers.RandomNormal(seed=0)
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs + self.embedding


def full_softmax_step(
    embedding: tf.Variable, weights: tf.Variable, optimizer: LazySGD, ids: tf.Tensor
) -> tf.Tensor:
    """Take the authors' published step: logits of all N rows, automatic gradient, dense update.

    Args:
      embedding: float32 [B, D].
      weights: float32 [N, D].
      optimizer: built for both.
      ids: int64 [B].

    Returns:
      The loss.
    """
    with tf.GradientTape() as tape:
        queries = tf.math.l2_normalize(embedding, axis=1) / TEMPERATURE
        logits = tf.matmul(queries, tf.math.l2_normalize(weights, axis=1), transpose_b=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(ids, logits))
    variables = [embedding, weights]
    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
    return loss


def pic_step(sizes: Sizes, num_instances: int, steps: int) -> Callable[[], tf.Tensor]:
    """Make all of `PIC.train_step` but the backbone, on all replicas in scope.

    Visits come in sliding-window order.

    Before it the visits of two windows pass through the ring, so that it is full, and hits, misses
    and returning rows come as often as in the middle of a training run.

    Args:
      sizes: B and K over all replicas; multiples of their number R.
      num_instances: N.
      steps: number of steps to come.

    Returns:
      A function that takes one step and returns the first replica's loss, there once all replicas
      have finished.
    """
    strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    b, d, k = sizes.batch_size, sizes.embedding_dim, sizes.num_negatives
    window = min(131072, num_instances) // b * b
    stride = max(window // 8 // replicas, 1) * replicas
    sizes = num_instances, b, window, stride
    orders = [SlidingWindow(*sizes, 0, r, replicas) for r in range(replicas)]
    passed = 2 * max(orders[0].steps_per_window, -(-k // b))
    ids_of = [tf.function(order.instance_ids) for order in orders]

    def visits(step: int):
        """int64 [B / R] ids for each replica."""
        own = [ids(tf.constant(step, tf.int64)) for ids in ids_of]
        return strategy.experimental_distribute_values_from_function(
            lambda it: own[it.replica_id_in_sync_group]
        )

    all_visits = [visits(step) for step in range(passed + steps)]

    inputs = keras.Input([d], batch_size=b)  # Keras divides it by R
    backbone = keras.Model(inputs, GivenEmbedding()(inputs))
    model = PIC(backbone, num_instances, k, head="none", temperature=TEMPERATURE)
    rate = WarmupCosine(0.03 * b / 256, TRAINING_STEPS, TRAINING_STEPS // 40)
    model.compile(LazySGD(rate, max_updates=TRAINING_STEPS))

    def visit(ids: tf.Tensor) -> None:
        """A step without loss: the ring and the optimizer's history move."""
        model.classifier.admit(ids, model.optimizer)
        variables = model.trainable_variables
        model.optimizer.apply_gradients([(tf.zeros_like(x), x) for x in variables])

    def train(ids: tf.Tensor) -> tf.Tensor:
        return model.train_step((tf.zeros([b // replicas, d]), ids))["loss"]

    @tf.function
    def pass_through(ids: tf.Tensor) -> None:
        strategy.run(visit, (ids,))

    @tf.function
    def train_step(ids: tf.Tensor) -> tf.Tensor:
        return strategy.experimental_local_results(strategy.run(train, (ids,)))[0]

    for ids in all_visits[:passed]:
        pass_through(ids)
    upcoming = iter(all_visits[passed:])
    return lambda: train_step(next(upcoming))
