"""Keras model with instance rows: what `fit`, `save` and their like do around a step."""

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras.optimizers import Optimizer

from pic_tf.instances import batch
from pic_tf.instances.handover import check_stamps, hand_over
from pic_tf.instances.saving import check_model_file, check_shapes, check_weights_file
from pic_tf.instances.step_guard import StepGuard
from pic_tf.optim.checks import (
    check_backbone_optimizer,
    check_lazy_sgd,
    check_loss_scaling,
    check_unused,
)
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.optim.momentum import create_momentum
from pic_tf.optim.variables import variables_of

_SENTENCE = re.compile(r"assertion failed: (\[expected .*)")

_SAVING = (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore)


class RowModel(keras.Model):
    """Keras model around an `InstanceClassifier` and its `LazySGD`.

    Rows at rest are what they are by the history of all steps, so weights, rows, step and history
    belong together: Keras' ways to save carry all of them, those that cannot are refused, and what
    is wrong is said before anything moves.

    Attributes, of the derived class:
      classifier: the rows.
      lazy_sgd: their optimizer, None before `compile`.
      backbone_optimizer: another one, or None.
      probe: or None.
    """

    def __init__(self, name: str):
        super().__init__(name=name)
        self.lazy_sgd = self.backbone_optimizer = None

    def compile(
        self, optimizer: LazySGD, backbone_optimizer: Optimizer | None = None, **kwargs
    ) -> None:
        """Take the optimizers, and settings as Keras' own `compile`.

        Under mixed_float16 the loss is scaled; a step that overflows is skipped, the scale halved.
        Rows that rest are caught up where another optimizer takes over.

        Args:
          optimizer: of rows and head, and of a backbone without its own; of one model.
          backbone_optimizer: another Keras optimizer, with its own rate. It is told of steps to
            skip if it has a method `skip_unless`, as `LARS` has; else it gets gradients of zero.
          **kwargs: `run_eagerly`, `steps_per_execution`, `jit_compile` (all but the checks).

        Raises:
          TypeError: for another optimizer.
          ValueError: for an optimizer of another scope or model, or settings that exclude each
            other or have no use here.
        """
        before, strategy = self.lazy_sgd, self.distribute_strategy
        self.jit_compiled = kwargs.pop("jit_compile", None)
        check_lazy_sgd(optimizer, strategy, self.jit_compiled)
        check_backbone_optimizer(backbone_optimizer, optimizer)
        check_unused(kwargs)
        scaled = self.dtype_policy.name == "mixed_float16"
        check_loss_scaling(scaled, backbone_optimizer, self.projection)
        optimizer.belong_to(self.classifier)
        with strategy.scope():
            if before not in (None, optimizer):
                hand_over(self.classifier, before, optimizer)
        super().compile(optimizer=optimizer, **kwargs)
        self.distribute_reduction_method = "first"  # what a step returns is the same in all
        self.loss_scaling = None if self.optimizer is optimizer else self.optimizer
        self.lazy_sgd, self.backbone_optimizer = optimizer, backbone_optimizer
        statistics = self.backbone.non_trainable_weights + self.projection.non_trainable_weights
        with strategy.scope():
            self.guard = StepGuard(statistics, [optimizer, backbone_optimizer], self.loss_scaling)
        self.skipped, self.last_skipped = self.guard.skipped, self.guard.last_skipped
        update = self._update
        jitted = tf.function(update, jit_compile=True) if self.jit_compiled else update
        self._update_function = jitted

    @functools.wraps(keras.Model.fit)
    def fit(self, *args, **kwargs):
        given = inspect.signature(super().fit).bind(*args, **kwargs).arguments
        if given.get("validation_split") or given.get("validation_data") is not None:
            raise ValueError(
                "expected fit without validation data, got some: a held-out image has no row, so "
                "there is no loss; classify by features, as pic_tf.evaluate does"
            )
        for callback in given.get("callbacks") or []:
            if isinstance(callback, keras.callbacks.ModelCheckpoint):
                check = check_weights_file if callback.save_weights_only else check_model_file
                check(callback.filepath)
            if isinstance(callback, _SAVING) or getattr(callback, "restore_best_weights", False):
                self._check_replicas()
        return super().fit(*args, **kwargs)

    def make_train_function(self, force: bool = False) -> Callable[[Iterator], dict]:
        """Make Keras' function of a step, whose errors begin with their sentence."""
        if self.lazy_sgd is not None:
            check_stamps(self.classifier, self.lazy_sgd, self.distribute_strategy)
        if self.train_function is not None and not force:
            return self.train_function
        step = super().make_train_function(force)

        def train_function(iterator: Iterator) -> dict:
            if self.distribute_strategy.num_replicas_in_sync == 1:
                batch.check(iterator.element_spec, self.probe is not None)
            with _sentence_first():
                return step(iterator)

        self.train_function = train_function
        return train_function

    def test_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """Refuse to evaluate: a held-out image has no row of its own, so there is no loss."""
        refusal = "expected fit without validation data, got evaluate: use pic_tf.evaluate"
        raise NotImplementedError(refusal)

    def build_optimizers(self) -> None:
        """Create the momentum of backbone and head now, so that a checkpoint can bring it back."""
        for optimizer, variables in self._optimizers():
            create_momentum(optimizer, variables)

    def get_weights(self) -> list[np.ndarray]:
        """Copy `weights`; and, of a compiled model, momentum, step and history."""
        self._check_replicas()
        return [*super().get_weights(), *(v.numpy() for v in self._beside_weights())]

    def set_weights(self, weights: list[np.ndarray]) -> None:
        """Bring back what `get_weights` gave.

        Raises:
          ValueError: for weights of another model, or of one that was not compiled alike.
        """
        self._check_replicas()
        own, beside = self.weights, self._beside_weights()
        check_shapes(weights, [*own, *beside])
        super().set_weights(weights[: len(own)])
        for variable, value in zip(beside, weights[len(own) :]):
            variable.assign(value)

    def save(self, filepath: str, *args, **kwargs) -> None:
        """Save all of the model in a .keras file."""
        self._check_replicas()
        check_model_file(filepath, kwargs.get("save_format"))
        super().save(filepath, *args, **kwargs)

    def save_weights(self, filepath: str, *args, **kwargs) -> None:
        """Save as Keras does, with rows, step and history; not in the old HDF5 format."""
        self._check_replicas()
        check_weights_file(filepath, kwargs.get("save_format"))
        super().save_weights(filepath, *args, **kwargs)

    def load_weights(self, filepath: str, *args, **kwargs) -> Any:
        """Load what `save_weights` saved."""
        self._check_replicas()
        if not str(filepath).endswith(".keras"):
            check_weights_file(filepath)
        return super().load_weights(filepath, *args, **kwargs)

    def save_own_variables(self, store: dict) -> None:
        """Save all but the network, for files of Keras' newer formats."""
        self._check_replicas()
        for i, variable in enumerate(self._beside_network()):
            store[str(i)] = variable.numpy()

    def load_own_variables(self, store: dict) -> None:
        """Load all but the network, before Keras loads the layers."""
        self._check_replicas()
        variables, values = (
            self._beside_network(),
            [store[str(i)] for i in range(len(store.keys()))],
        )
        if self.lazy_sgd is None:  # rows for a look; `fit` sees that their optimizer is missing
            values = values[: len(variables)]
        check_shapes(values, variables)
        for variable, value in zip(variables, values):
            variable.assign(value)

    def _optimizers(self) -> list[tuple[Optimizer, list[tf.Variable]]]:
        """Pair each optimizer with its variables: those of the backbone, then those of the head."""
        backbone, head = self.backbone.trainable_variables, self.projection.trainable_variables
        if self.backbone_optimizer is None:
            return [(self.optimizer, [*backbone, *head])]
        return [(self.backbone_optimizer, backbone), (self.optimizer, head)]

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

    def _check_replicas(self) -> None:
        count = self.distribute_strategy.num_replicas_in_sync
        if count > 1:
            raise ValueError(
                f"expected one replica to save or load in Keras' ways, got {count}, whose rows "
                "they would mix up: use pic_tf.runs.checkpoint.Checkpoints"
            )


@contextlib.contextmanager
def _sentence_first() -> Iterator[None]:
    """Raise a failed assertion of ours as its sentence alone."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = _SENTENCE.search(str(error))
        if not found:
            raise
        words = re.findall(r"\[([^\[\]]*)\]", found[1].split(" [Op:")[0])
        raise tf.errors.InvalidArgumentError(None, None, " ".join(words)) from None
