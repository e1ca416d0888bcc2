"""Keras model of backbone and head that trains by guarded steps: what surrounds its loss."""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras
from tf_keras.optimizers import Optimizer

from pic_tf.instances import batch
from pic_tf.instances.health import ViewMetrics
from pic_tf.instances.step_guard import StepGuard
from pic_tf.models.probe import LinearProbe
from pic_tf.models.projection import feature_dim, projection_head
from pic_tf.optim.checks import (
    check_backbone_optimizer,
    check_lazy_sgd,
    check_loss_scaling,
    check_unused,
)
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.optim.momentum import create_momentum
from pic_tf.replicas import collectives


class GuardedModel(keras.Model):
    """Backbone, projection head and linear probe; a derived class adds the loss of a step, `_step`.

    Args:
      backbone: Keras model, images -> features [B, C], or [B, h, w, C] to average over h and w.
      head: see `projection_head`.
      hidden_dim: width of the mlp head's hidden layer.
      embedding_dim: D.
      augment: function from images to the backbone's input, or None.
      probe: learns from labelled images which the batches bring along; None for none.
      metrics: numbers of the steps.
      name: of the model.

    Attributes:
      lazy_sgd: optimizer of head and backbone, None before `compile`.
      backbone_optimizer: another one of the backbone, or None.
      backbone_frozen: whether the backbone is held, see `freeze_backbone`.
      skipped, last_skipped: of the `StepGuard`.

    Raises:
      ValueError: for a backbone with an unknown number of features, or values out of range.
    """

    def __init__(
        self,
        backbone: keras.Model,
        head: str,
        hidden_dim: int,
        embedding_dim: int,
        augment: Callable | None,
        probe: LinearProbe | None,
        metrics: ViewMetrics,
        name: str,
    ):
        super().__init__(name=name)
        self.lazy_sgd = self.backbone_optimizer = None
        self.backbone_frozen = False
        self.backbone, self.probe, self.augment = backbone, probe, augment
        self.head, self.hidden_dim = head, hidden_dim
        self.projection = projection_head(head, feature_dim(backbone), hidden_dim, embedding_dim)
        self.step_metrics = metrics
        self.built = True  # all weights are there: Keras need not warn where it saves them

    def features(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Compute features, float [B, C], of the backbone's input."""
        return features_of(self.backbone, images, training and not self.backbone_frozen)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Compute embeddings, float [B, D], of the backbone's input."""
        return self.projection(self.features(images, training), training=training)

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
        strategy = self.distribute_strategy
        self.jit_compiled = kwargs.pop("jit_compile", None)
        check_lazy_sgd(optimizer, strategy, self.jit_compiled)
        check_backbone_optimizer(backbone_optimizer, optimizer)
        check_unused(kwargs)
        scaled = self.dtype_policy.name == "mixed_float16"
        check_loss_scaling(scaled, backbone_optimizer, self.projection)
        self._give_to(optimizer)
        super().compile(optimizer=optimizer, **kwargs)
        self.distribute_reduction_method = "first"  # what a step returns is the same in all
        self.loss_scaling = None if self.optimizer is optimizer else self.optimizer
        self.lazy_sgd, self.backbone_optimizer = optimizer, backbone_optimizer
        optimizers = [optimizer, backbone_optimizer]
        with strategy.scope():
            self.guard = StepGuard(self._statistics(), optimizers, self.loss_scaling)
        self.skipped, self.last_skipped = self.guard.skipped, self.guard.last_skipped
        self._prepare_update()

    def freeze_backbone(self, frozen: bool = True) -> None:
        """Hold the backbone, its batch statistics too, or let it move again; its momentum stays.

        Head and rows go on. Steps are traced anew.

        Args:
          frozen: whether to hold it.
        """
        if self.backbone_frozen != frozen:
            self.build_optimizers()  # momentum of all, in the order of a model that is not frozen
            self.backbone_frozen = frozen
            self._prepare_update()

    @functools.wraps(keras.Model.fit)
    def fit(self, *args, **kwargs):
        self._check_fit(inspect.signature(super().fit).bind(*args, **kwargs).arguments)
        return super().fit(*args, **kwargs)

    def _check_fit(self, given: dict[str, Any]) -> None:
        """Refuse arguments of `fit` that a step has no use for."""
        if given.get("validation_split") or given.get("validation_data") is not None:
            raise ValueError(
                "expected fit without validation data, got some: a held-out image is none of those "
                "that are told apart; classify by features, as pic_tf.evaluate does"
            )
        if given.get("class_weight"):
            raise ValueError(
                "expected fit without class_weight, got some, and instance ids are no classes: "
                "give the weight of each image as the third part of a batch"
            )

    def make_train_function(self, force: bool = False) -> Callable[[Iterator], dict]:
        """Make Keras' function of a step, whose errors begin with their sentence."""
        if self.train_function is not None and not force:
            return self.train_function
        if self.lazy_sgd is not None:
            self.build_optimizers()  # or the first step is traced twice, to create the momentum
        step = super().make_train_function(force)

        def train_function(iterator: Iterator) -> dict:
            if self.distribute_strategy.num_replicas_in_sync == 1:
                batch.check(iterator.element_spec, self.probe is not None)
            with batch.sentence_first():
                return step(iterator)

        self.train_function = train_function
        return train_function

    def train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """Update once all that learns.

        Args:
          data: this replica's share of a batch, as `pic_tf.instances.batch.unpack` takes it.

        Returns:
          The step metrics over the epoch so far; skipped, steps skipped so far; learning_rate of
          this step; probe_accuracy on the probe's own batches.
        """
        images, instance_ids, weights, labelled = own = batch.unpack(data, self.probe is not None)
        checks = own.checks(self.augment is not None) + self.lazy_sgd.checks()
        checks += self._checks(instance_ids)
        # Every change of state waits for the batch: without one (the data end, an image is broken)
        # step counter and history, which need none, would go on. XLA would drop the checks.
        with tf.control_dependencies([instance_ids, *checks]):
            instance_ids, weights = tf.identity(instance_ids), tf.identity(weights)
            return self._update_function(images, instance_ids, weights, labelled)

    def test_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """Refuse to evaluate: a held-out image has no row of its own, so there is no loss."""
        refusal = "expected fit without validation data, got evaluate: use pic_tf.evaluate"
        raise NotImplementedError(refusal)

    def get_config(self) -> dict:
        """Refuse to save the whole model, of a class that cannot be built from a file."""
        raise ValueError(
            f"expected save_weights of a {type(self).__name__}, got save, and no file of the whole "
            "model can be loaded: save_weights without an ending keeps all, optimizers too"
        )

    def build_optimizers(self) -> None:
        """Create the momentum of backbone and head now, so that a checkpoint can bring it back."""
        for optimizer, variables in self._optimizers():
            create_momentum(optimizer, variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """All running metrics, which `fit` resets where an epoch begins."""
        probed = [self.probe.accuracy] if self.probe else []
        return [*self.step_metrics.numbers, *probed, *self.step_metrics.histograms]

    @property
    def own_state(self) -> dict[str, Any]:
        """State of the method beside network, rows, probe, optimizers and metrics, by name."""
        return {}

    def _prepare_update(self) -> None:
        """Make a step that has not been traced."""
        update = self._update
        jitted = tf.function(update, jit_compile=True, autograph=False)
        self._update_function = jitted if self.jit_compiled else update
        self.train_function = None

    def _update(self, images, instance_ids, weights, labelled) -> dict[str, tf.Tensor]:
        """Augment, and take the step with views that fit."""
        views = images if self.augment is None else self.augment(images)
        with tf.control_dependencies(batch.check_views(views, instance_ids)):
            self._step(views, instance_ids, weights)
            if self.probe:
                features = self.features(labelled[0])
                self.probe.learn(features, *labelled[1:], self.lazy_sgd.iterations)
            probed = [self.probe.accuracy] if self.probe else []
            logs = {m.name: m.result() for m in [*self._shown_numbers, *probed]}
            rate = tf.identity(self.lazy_sgd.learning_rate)
            return logs | {"skipped": tf.identity(self.skipped), "learning_rate": rate}

    def _step(self, views, instance_ids: tf.Tensor, weights: tf.Tensor) -> None:
        """Take the step of the paper, and count it in the metrics."""
        raise NotImplementedError

    def _share(self, losses: tf.Tensor) -> tf.Tensor:
        """Compute the share of this replica in the mean loss: the optimizers add those of all."""
        loss = tf.reduce_mean(losses) / collectives.count()
        if regularised := [*self.backbone.losses, *self.projection.losses]:
            loss += tf.add_n(regularised) / collectives.count()
        return loss

    def _descend(
        self,
        tape: tf.GradientTape,
        loss: tf.Tensor,
        scaled: tf.Tensor,
        statistics: list[tf.Tensor],
        beside: Sequence[tf.Tensor] = (),
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """Move backbone and head (Eq. 2), unless something is not finite.

        Args:
          tape: has seen the loss.
          loss: this replica's share.
          scaled: the loss as the guard scales it.
          statistics: the guard's snapshot from before the forward pass.
          beside: tensors that the tape has watched besides.

        Returns:
          (finite, failed) as of `StepGuard.check`, and the gradient of each of `beside`.
        """
        trained = [v for _, variables in self._optimizers() for v in variables]
        gradients = self.guard.unscaled(tape.gradient(scaled, [*trained, *beside]))
        step = self.lazy_sgd.iterations
        finite, failed = self.guard.check(loss, gradients, statistics, step)
        for optimizer, variables in self._optimizers():
            self.guard.apply(optimizer, gradients[: len(variables)], variables, finite)
            gradients = gradients[len(variables) :]
        return finite, failed, gradients

    def _optimizers(self) -> list[tuple[Optimizer, list[tf.Variable]]]:
        """Pair each optimizer with its variables: those of the backbone, then those of the head."""
        backbone = [] if self.backbone_frozen else self.backbone.trainable_variables
        head = self.projection.trainable_variables
        if self.backbone_optimizer is None:
            return [(self.optimizer, [*backbone, *head])]
        return [(self.backbone_optimizer, backbone), (self.optimizer, head)]

    def _statistics(self) -> list[tf.Variable]:
        """List what a forward pass may move."""
        return self.backbone.non_trainable_weights + self.projection.non_trainable_weights

    def _checks(self, instance_ids: tf.Tensor) -> list[tf.Operation]:
        """Assertions on a batch of ids."""
        return []

    def _give_to(self, optimizer: LazySGD) -> None:
        """Let another optimizer take over."""
        optimizer.belong_to(self)

    @property
    def _shown_numbers(self) -> list[keras.metrics.Metric]:
        return self.step_metrics.numbers


def features_of(backbone: keras.Model, images: tf.Tensor, training: bool) -> tf.Tensor:
    """Compute features [B, C]; of a backbone with feature maps [B, h, w, C], their means."""
    features = backbone(images, training=training)
    return tf.reduce_mean(features, axis=[1, 2]) if features.shape.rank == 4 else features
