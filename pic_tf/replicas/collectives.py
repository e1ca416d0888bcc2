"""What each replica keeps for itself, and the little that crosses between them.

Outside a strategy there is one replica and nothing crosses.
"""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf


def count() -> int:
    """R, replicas of the strategy in scope."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def index() -> tf.Tensor:
    """int64 scalar r in [0, R), which replica runs this; inside `strategy.run` only."""
    return tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int64)


def local_variable(initial_value: Callable[[], tf.Tensor], name: str) -> tf.Variable:
    """A variable of which every replica has its own, never synchronised.

    Read across replicas, as a TensorFlow checkpoint does, it is the first replica's.

    Args:
      initial_value: gives the value that all start with.
      name: of the variable.

    Returns:
      The variable, not trainable.
    """
    return tf.Variable(
        initial_value,
        trainable=False,
        name=name,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


@tf.function
def run(function: Callable[[], None]) -> None:
    """Call the function once in every replica of the strategy in scope."""
    tf.distribute.get_strategy().run(function)


def gather_rows(variable: tf.Variable, rows: tf.Tensor) -> tf.Tensor:
    """variable[rows], in this replica."""
    # The op itself: `tf.gather` first copies the whole of a variable that each replica keeps for itself.
    return tf.raw_ops.ResourceGather(resource=variable.handle, indices=rows, dtype=variable.dtype)


def scatter_rows(variable: tf.Variable, rows: tf.Tensor, values: tf.Tensor) -> None:
    """variable[rows[i]] <- values[i] in place, in this replica."""
    # The op itself: `Variable.scatter_update` refuses variables that each replica keeps for itself.
    tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=rows, updates=values)


def all_gather(x: tf.Tensor) -> tf.Tensor:
    """[b, ...] of every replica -> [R b, ...] in all of them, replica after replica."""
    if count() == 1:
        return x
    gathered = tf.distribute.get_replica_context().all_gather(x, axis=0)
    return tf.ensure_shape(gathered, [None if x.shape[0] is None else count() * x.shape[0], *x.shape[1:]])


def all_sum(x: tf.Tensor) -> tf.Tensor:
    """The sum over replicas, in all of them."""
    return x if count() == 1 else tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, x)


def own_part(x: tf.Tensor) -> tf.Tensor:
    """[R b, ...] -> [b, ...], what this replica put into `all_gather`."""
    if count() == 1:
        return x
    b = tf.shape(x)[0] // count() if x.shape[0] is None else x.shape[0] // count()
    return tf.gather(x, tf.cast(index(), tf.int32) * b + tf.range(b))


def values_of(variables: list[tf.Variable], strategy: tf.distribute.Strategy) -> list[np.ndarray]:
    """What each replica has in its own variables; every worker has to call it.

    Args:
      variables: small ones, since every replica gathers them all.
      strategy: in whose scope they were made.

    Returns:
      [R, ...] of each variable.
    """

    @tf.function
    def gather():
        return strategy.run(lambda: [all_gather(tf.identity(variable)[None]) for variable in variables])

    return [strategy.experimental_local_results(value)[0].numpy() for value in gather()] if variables else []


def assign_to(variables: list[tf.Variable], values: list[np.ndarray], strategy: tf.distribute.Strategy) -> None:
    """The reverse of `values_of`: replica r gets values[r] of each variable."""

    @tf.function
    def assign() -> None:
        def on_replica() -> None:
            for variable, value in zip(variables, values):
                variable.assign(tf.constant(value)[index()])

        strategy.run(on_replica)

    assign()


def local_indices(strategy: tf.distribute.Strategy) -> list[int]:
    """Which replicas are this worker's, in the order of `strategy.experimental_local_results`."""
    return [int(x) for x in strategy.experimental_local_results(tf.function(lambda: strategy.run(index))())]


def numbers_of_workers(number: int, strategy: tf.distribute.Strategy) -> np.ndarray:
    """int64 [R], the number of each replica's worker, the first worker's first; every worker has to call it."""

    gathered = _gather_numbers(strategy)(tf.constant(int(number), tf.int64))
    return strategy.experimental_local_results(gathered)[0].numpy()


@functools.cache
def _gather_numbers(strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    """Traced once: this is called for as long as a run lasts."""

    @tf.function
    def gather(number: tf.Tensor) -> tf.Tensor:
        return strategy.run(lambda: all_gather(number[None]))

    return gather


def distribute(strategy: tf.distribute.Strategy, make: Callable[[int, int], tf.data.Dataset]):
    """Give each replica the batches that `make` makes for it.

        order = lambda r, count: SlidingWindow(N, B, W, S, replica=r, num_replicas=count)
        model.fit(distribute(strategy, lambda r, count: my_batches(order(r, count))), steps_per_epoch=steps)

    Args:
      strategy: of the model.
      make: from (r, R) to a data set of the batches of replica r, B / R views each, of instances with
        `id % R == r`. All replicas need equally many batches.

    Returns:
      What `fit` takes: a distributed data set, or, with one replica, the data set itself.
    """
    total = strategy.num_replicas_in_sync

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        here = total // context.num_input_pipelines
        datasets = [make(context.input_pipeline_id * here + i, total) for i in range(here)]
        # The replicas of a worker draw from one stream in turn.
        return tf.data.Dataset.choose_from_datasets(datasets, tf.data.Dataset.range(here).repeat())

    return make(0, 1) if total == 1 else strategy.distribute_datasets_from_function(of_worker)
