"""Variables of each replica, and the little that crosses between replicas.

Outside a strategy there is one replica and nothing crosses.
"""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

_first: dict[str, tf.distribute.Strategy] = {}


def count() -> int:
    """Count the replicas R of the strategy in scope."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def check_only_strategy() -> None:
    """Check that the strategy in scope is the process's first one with several replicas.

    Raises:
      ValueError: for another one: TensorFlow numbers collectives by device and order of creation,
        so those of two strategies meet.
    """
    strategy = tf.distribute.get_strategy()
    if count() > 1 and _first.setdefault("strategy", strategy) is not strategy:
        raise ValueError(
            "expected one strategy with several replicas a process, got a second one, whose "
            "collectives TensorFlow mixes up with the first one's: use the first for all models, "
            "or start another process"
        )


def index() -> tf.Tensor:
    """Give the number r in [0, R) of this replica, an int64 scalar; in `strategy.run` only."""
    return tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int64)


def local_variable(initial_value: Callable[[], tf.Tensor], name: str) -> tf.Variable:
    """Create a variable for every replica, never synchronised.

    Read across replicas, as a TensorFlow checkpoint does, it gives the first replica's value.

    Args:
      initial_value: makes the value that all start with.
      name: name of the variable.

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


@tf.function(autograph=False)
def run(function: Callable[[], None]) -> None:
    """Call the function once in every replica of the strategy in scope."""
    tf.distribute.get_strategy().run(function)


def gather_rows(variable: tf.Variable, rows: tf.Tensor) -> tf.Tensor:
    """Read variable[rows] in this replica.

    Args:
      variable: [n, ...].
      rows: int [b].

    Returns:
      [b, ...].
    """
    # The op itself: `tf.gather` first copies the whole of a replica's own variable.
    return tf.raw_ops.ResourceGather(resource=variable.handle, indices=rows, dtype=variable.dtype)


def scatter_rows(variable: tf.Variable, rows: tf.Tensor, values: tf.Tensor) -> None:
    """Set variable[rows[i]] <- values[i] in place, in this replica.

    Args:
      variable: [n, ...].
      rows: int [b]; of a row that comes twice, either value stays.
      values: [b, ...].
    """
    # The op itself: `Variable.scatter_update` refuses a replica's own variables.
    tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=rows, updates=values)


def all_gather(x: tf.Tensor) -> tf.Tensor:
    """Gather [b, ...] of every replica to [R b, ...] in all of them, replica after replica."""
    if count() == 1:
        return x
    gathered = tf.distribute.get_replica_context().all_gather(x, axis=0)
    rows = None if x.shape[0] is None else count() * x.shape[0]
    return tf.ensure_shape(gathered, [rows, *x.shape[1:]])


def all_sum(x: tf.Tensor) -> tf.Tensor:
    """Sum over replicas; all of them get the sum."""
    if count() == 1:
        return x
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, x)


def own_part(x: tf.Tensor) -> tf.Tensor:
    """Take from [R b, ...] the [b, ...] that this replica put into `all_gather`."""
    if count() == 1:
        return x
    b = tf.shape(x)[0] // count() if x.shape[0] is None else x.shape[0] // count()
    return tf.gather(x, tf.cast(index(), tf.int32) * b + tf.range(b))


def values_of(variables: list[tf.Variable], strategy: tf.distribute.Strategy) -> list[np.ndarray]:
    """Read every replica's own values of variables; every worker has to call it.

    Args:
      variables: small ones, since every replica gathers them all.
      strategy: of the variables.

    Returns:
      [R, ...] of each variable.
    """

    @tf.function(autograph=False)
    def gather() -> list[tf.Tensor]:
        def on_replica() -> list[tf.Tensor]:
            return [all_gather(tf.identity(variable)[None]) for variable in variables]

        return strategy.run(on_replica)

    if not variables:
        return []
    return [strategy.experimental_local_results(value)[0].numpy() for value in gather()]


def assign_to(
    variables: list[tf.Variable], values: list[np.ndarray], strategy: tf.distribute.Strategy
) -> None:
    """Give replica r its own values[r] of each variable, the reverse of `values_of`."""

    @tf.function(autograph=False)
    def assign() -> None:
        def on_replica() -> None:
            for variable, value in zip(variables, values):
                variable.assign(tf.constant(value)[index()])

        strategy.run(on_replica)

    assign()


def local_indices(strategy: tf.distribute.Strategy) -> list[int]:
    """List the numbers r of this worker's replicas, in the order of TensorFlow's local results."""
    numbers = tf.function(lambda: strategy.run(index), autograph=False)()
    return [int(number) for number in strategy.experimental_local_results(numbers)]


def numbers_of_workers(number: int, strategy: tf.distribute.Strategy) -> np.ndarray:
    """Exchange one number a worker; every worker has to call it.

    Args:
      number: this worker's.
      strategy: of the workers.

    Returns:
      int64 [R], for each replica the number of its worker.
    """
    gathered = _gather_numbers(strategy)(tf.constant(int(number), tf.int64))
    return strategy.experimental_local_results(gathered)[0].numpy()


@functools.cache
def _gather_numbers(strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    """Trace the exchange once; a run calls it again and again."""

    @tf.function(autograph=False)
    def gather(number: tf.Tensor) -> tf.Tensor:
        return strategy.run(lambda: all_gather(number[None]))

    return gather


def distribute(strategy: tf.distribute.Strategy, make: Callable[[int, int], tf.data.Dataset]):
    """Give each replica the batches that `make` makes for it.

        order = lambda r, count: SlidingWindow(N, B, W, S, replica=r, num_replicas=count)
        batches = distribute(strategy, lambda r, count: my_batches(order(r, count)))
        model.fit(batches, steps_per_epoch=steps)

    Args:
      strategy: of the model.
      make: from (r, R) to a data set of the batches of replica r, B / R views each, of instances
        with `id % R == r`. All replicas need equally many batches.

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
