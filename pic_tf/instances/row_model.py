"""Keras model with instance rows: what `fit`, `save` and their like do around a step."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from pic_tf.instances.guarded_model import GuardedModel
from pic_tf.instances.handover import check_stamps, hand_over
from pic_tf.instances.health import StepMetrics
from pic_tf.instances.saving import check_model_file, check_shapes, check_weights_file
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.optim.variables import variables_of

_SAVING = (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore)


class RowModel(GuardedModel):
    """Keras model around an `InstanceClassifier` and its `LazySGD`.

    Rows at rest are what they are by the history of all steps, so weights, rows, step and history
    belong together: Keras' ways to save carry all of them, those that cannot are refused, and what
    is wrong is said before anything moves.

    Args:
      *network: backbone, head, hidden_dim, embedding_dim, augment and probe of `GuardedModel`.
      name: of the model.

    Attributes:
      classifier: the rows, of the derived class.
      row_norms, row_gaps: histograms of the step metrics.
    """

    def __init__(self, *network, name: str):
        super().__init__(*network, metrics=StepMetrics(), name=name)
        self.row_norms, self.row_gaps = self.step_metrics.row_norms, self.step_metrics.row_gaps

    def _check_fit(self, given: dict[str, Any]) -> None:
        super()._check_fit(given)
        for callback in tf.nest.flatten(given.get("callbacks")):  # Keras takes one alone, too
            if isinstance(callback, keras.callbacks.ModelCheckpoint):
                check = check_weights_file if callback.save_weights_only else check_model_file
                check(callback.filepath)
            if isinstance(callback, _SAVING) or getattr(callback, "restore_best_weights", False):
                self._check_whole()

    def make_train_function(self, force: bool = False) -> Callable[[Iterator], dict]:
        """Make Keras' function of a step, for rows that fit their optimizer."""
        if self.lazy_sgd is not None:
            check_stamps(self.classifier, self.lazy_sgd, self.distribute_strategy)
        return super().make_train_function(force)

    def get_weights(self) -> list[np.ndarray]:
        """Copy `weights`; and, of a compiled model, momentum, step and history."""
        self._check_whole()
        return [*super().get_weights(), *(v.numpy() for v in self._beside_weights())]

    def set_weights(self, weights: list[np.ndarray]) -> None:
        """Bring back what `get_weights` gave.

        Raises:
          ValueError: for weights of another model, or of one that was not compiled alike.
        """
        self._check_whole()
        own, beside = self.weights, self._beside_weights()
        check_shapes(weights, [*own, *beside])
        super().set_weights(weights[: len(own)])
        for variable, value in zip(beside, weights[len(own) :]):
            variable.assign(value)

    def save(self, filepath: str, *args, **kwargs) -> None:
        """Save all of the model in a .keras file."""
        self._check_whole()
        check_model_file(filepath, kwargs.get("save_format"))
        super().save(filepath, *args, **kwargs)

    def save_weights(self, filepath: str, *args, **kwargs) -> None:
        """Save as Keras does, with rows, step and history; not in the old HDF5 format."""
        self._check_whole()
        check_weights_file(filepath, kwargs.get("save_format"))
        super().save_weights(filepath, *args, **kwargs)

    def load_weights(self, filepath: str, *args, **kwargs) -> Any:
        """Load what `save_weights` saved."""
        self._check_whole()
        if not str(filepath).endswith(".keras"):
            check_weights_file(filepath)
        return super().load_weights(filepath, *args, **kwargs)

    def save_own_variables(self, store: dict) -> None:
        """Save all but the network, for files of Keras' newer formats."""
        self._check_whole()
        for i, variable in enumerate(self._beside_network()):
            store[str(i)] = variable.numpy()

    def load_own_variables(self, store: dict) -> None:
        """Load all but the network, before Keras loads the layers."""
        self._check_whole()
        variables = self._beside_network()
        values = [store[str(i)] for i in range(len(store.keys()))]
        if self.lazy_sgd is None:  # rows for a look; `fit` sees that their optimizer is missing
            values = values[: len(variables)]
        check_shapes(values, variables)
        for variable, value in zip(variables, values):
            variable.assign(value)

    def get_compile_config(self) -> dict | None:
        """Describe how the model is compiled, for `keras.models.load_model`."""
        if self.lazy_sgd is None:
            return None
        config = {
            "optimizer": self.lazy_sgd,
            "backbone_optimizer": self.backbone_optimizer,
            "jit_compile": self.jit_compiled,
            "run_eagerly": self._run_eagerly,
            "steps_per_execution": int(self._steps_per_execution.numpy()),
        }
        return {name: keras.saving.serialize_keras_object(value) for name, value in config.items()}

    def compile_from_config(self, config: dict) -> None:
        """Compile as `get_compile_config` describes it."""
        self.compile(
            **{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()}
        )

    def _beside_weights(self) -> list[tf.Variable]:
        """List the state of the optimizers: momentum, step and history."""
        if self.lazy_sgd is None:
            return []
        self.build_optimizers()
        optimizers = {"optimizer": self.optimizer, "backbone_optimizer": self.backbone_optimizer}
        roots = {name: optimizer for name, optimizer in optimizers.items() if optimizer}
        found = [variable for _, variable in variables_of(roots)]
        # Optimizers of the old kind keep their moments apart.
        found += getattr(self.backbone_optimizer, "weights", [])
        return list({id(variable): variable for variable in found}.values())

    def _beside_network(self) -> list[tf.Variable]:
        guard = [] if self.lazy_sgd is None else [self.skipped, self.last_skipped]
        return [*self.classifier.weights, *guard, *self._beside_weights()]

    def _checks(self, instance_ids: tf.Tensor) -> list[tf.Operation]:
        return self.classifier.checks(instance_ids)

    def _give_to(self, optimizer: LazySGD) -> None:
        before = self.lazy_sgd
        optimizer.belong_to(self.classifier)
        with self.distribute_strategy.scope():
            if before not in (None, optimizer):
                hand_over(self.classifier, before, optimizer)

    @property
    def _shown_numbers(self) -> list[keras.metrics.Metric]:
        steps = self.step_metrics
        return steps.numbers if self.classifier.store else steps.numbers_where_no_row_rests

    def _check_whole(self) -> None:
        count = self.distribute_strategy.num_replicas_in_sync
        if count > 1:
            raise ValueError(
                f"expected one replica to save or load in Keras' ways, got {count}, whose rows "
                "they would mix up: use pic_tf.runs.checkpoint.Checkpoints"
            )
        if self.classifier.rows_on_device is not None:
            raise ValueError(
                "expected all rows on the device to save or load in Keras' ways, got rows on disk, "
                "which they would leave out: use pic_tf.runs.checkpoint.Checkpoints"
            )
