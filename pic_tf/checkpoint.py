"""Save and restore all that decides the future of a run."""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from pic_tf import replicas
from pic_tf.instances.rows import Rows, collect, place
from pic_tf.pic import PIC
from pic_tf.strategy import is_chief

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"  # what TensorFlow adds to the name of a variable


class Checkpoints:
    """Checkpoints of a compiled PIC model: network, rows, ring, momentum, history, step, running metrics.

    They have one form for any number of replicas: instance rows by instance (`Rows`), batch statistics as
    the mean over replicas. What replicas keep for themselves besides, their batch statistics and running
    metrics, is there too and comes back where their number is the same.

    With several workers each has to call every method; the first one writes.

    Args:
      directory: folder to keep them in; all workers must see it.
      model: a compiled model.
      keep: how many of the newest to keep.
    """

    def __init__(self, directory: str | os.PathLike, model: PIC, keep: int):
        self._model, self._strategy, self._directory = model, model.distribute_strategy, os.fspath(directory)
        self._chief = is_chief(self._strategy)
        parts = {"backbone": model.backbone, "projection": model.projection, "optimizer": model.optimizer}
        if model.backbone_optimizer:
            parts["backbone_optimizer"] = model.backbone_optimizer
        with self._strategy.scope():  # momentum must exist to be restored
            model.build_optimizers()
        self._parts = parts | {"metrics": list(model.metrics)}
        self._checkpoint = tf.train.Checkpoint(**self._parts)
        # Variables that replicas sum up are read together, so every worker has to write; but only one to keep it.
        self._aside = None if self._chief else tempfile.TemporaryDirectory()
        where = self._directory if self._chief else self._aside.name
        self._manager = tf.train.CheckpointManager(self._checkpoint, where, max_to_keep=keep)

    @property
    def step(self) -> int:
        """Steps taken so far."""
        return int(self._model.lazy_sgd.iterations.numpy())

    @property
    def latest(self) -> str | None:
        """Path of the newest checkpoint, None where there is none."""
        return tf.train.latest_checkpoint(self._directory)

    def save(self) -> None:
        """Write the state as it is now, unless the newest checkpoint already holds it."""
        if self._manager.latest_checkpoint and self._manager.latest_checkpoint.endswith(f"-{self.step}"):
            return
        rows = collect(self._model.classifier, self.step, self._strategy)
        local = replicas.values_of(self._local_variables(), self._strategy)
        if self._chief:
            self._checkpoint.instances = _as_variables(vars(rows))
            self._checkpoint.replicas = _as_variables({str(i): value for i, value in enumerate(local)})
        del rows
        self._manager.save(checkpoint_number=self.step)
        self._checkpoint.instances = self._checkpoint.replicas = tf.Module()

    def restore(self) -> int:
        """Bring the newest checkpoint back, if there is one.

        Returns:
          The number of steps taken by then, 0 for a fresh start.

        Raises:
          ValueError: if it is the checkpoint of another model.
        """
        if self.latest is None:
            return 0
        try:
            # Not by the object that saves: it would give what is new there the values that were left over here.
            status = tf.train.Checkpoint(**self._parts).restore(self.latest)
            status.assert_existing_objects_matched()
            status.expect_partial()  # the rows are read below
            reader = tf.train.load_checkpoint(self.latest)
            of_rows = {name: reader.get_tensor(f"instances/{name}{_VALUE}") for name in Rows.__annotations__}
            place(Rows(**of_rows), self._model.classifier, self._strategy)
            variables = self._local_variables()
            names = [f"replicas/{i}{_VALUE}" for i in range(len(variables))]
            if all(map(reader.has_tensor, names)):
                values = [reader.get_tensor(name) for name in names]
                if variables and len(values[0]) == self._strategy.num_replicas_in_sync:
                    replicas.assign_to(variables, values, self._strategy)
        except (ValueError, AssertionError, tf.errors.OpError) as error:
            raise ValueError(
                f"expected a checkpoint of this model in {self.latest!r}, got one that does not fit "
                f"({str(error).splitlines()[0]}): use another --output_dir"
            ) from error
        return self.step

    def _local_variables(self) -> list[tf.Variable]:
        """Of which each replica has its own value: batch statistics and running metrics."""
        if self._strategy.num_replicas_in_sync == 1:
            return []
        model = self._model
        everything = [*model.backbone.weights, *model.projection.weights, *metric_variables(model)]
        return [v for v in everything if v.synchronization == tf.VariableSynchronization.ON_READ]


def metric_variables(model: PIC) -> list[tf.Variable]:
    """The variables of a model's running metrics."""
    return [variable for metric in model.metrics for variable in metric.variables]


def _as_variables(values: dict[str, np.ndarray]) -> tf.Module:
    """What a checkpoint can hold, on the host."""

    def make() -> tf.Module:
        module = tf.Module()
        with tf.device("CPU"):
            for name, value in values.items():
                setattr(module, name, tf.Variable(value, trainable=False))
        return module

    # Keras saves in the strategy's scope, where variables are replicated; a new thread is outside of it.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(make).result()
