"""Let a step that is not finite leave no trace."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.replicas import collectives


class StepGuard(tf.Module):
    """Skip a step whose loss or gradient is not finite, and count it.

        before = guard.snapshot()
        with tf.GradientTape() as tape:
            loss = ...
            scaled = guard.scaled(loss)
        gradients = guard.unscaled(tape.gradient(scaled, variables))
        finite, failed = guard.check(loss, gradients, before, step)
        guard.apply(optimizer, gradients, variables, finite)

    After a skipped step batch statistics, weights and momentum are as before it. A gradient that
    overflows under loss scaling (float16) leaves no trace either, but counts as skipped only where
    no scale is left to take off. Create the guard in the strategy's scope.

    Args:
      statistics: batch statistics and other weights that are not trained, which a forward pass may
        move.
      optimizers: of the model. One with a method `skip_unless(finite)` is told; any other gets
        gradients of zero.
      loss_scaling: the optimizer around one of them that scales the loss; None where it is not
        scaled.

    Attributes:
      skipped: int64 variable, steps skipped so far.
      last_skipped: int64 variable, the last of them, -1 for none.
    """

    def __init__(
        self,
        statistics: Sequence[tf.Variable],
        optimizers: Sequence[keras.optimizers.Optimizer],
        loss_scaling: keras.mixed_precision.LossScaleOptimizer | None = None,
    ):
        super().__init__(name="guard")
        # With several replicas each has its own batch statistics; frozen weights they share.
        own, one = tf.VariableSynchronization.ON_READ, collectives.count() == 1
        self._statistics = [v for v in statistics if one or v.synchronization == own]
        self._told = [optimizer for optimizer in optimizers if hasattr(optimizer, "skip_unless")]
        self._loss_scaling = loss_scaling
        local = collectives.local_variable
        self.skipped = local(lambda: tf.constant(0, tf.int64), "skipped")
        self.last_skipped = local(lambda: tf.constant(-1, tf.int64), "last_skipped")

    def snapshot(self) -> list[tf.Tensor]:
        """Copy the batch statistics as they are before the forward pass."""
        return [tf.identity(variable) for variable in self._statistics]

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """Scale the loss to differentiate."""
        return self._loss_scaling.get_scaled_loss(loss) if self._loss_scaling else loss

    def unscaled(self, gradients: list) -> list:
        """Turn gradients of the scaled loss into those of the loss."""
        if self._loss_scaling is None:
            return gradients
        return self._loss_scaling.get_unscaled_gradients(gradients)

    def check(
        self, loss: tf.Tensor, gradients: list, before: list[tf.Tensor], step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Decide to take this step if loss + 1/2 |g|^2 + batch statistics is finite.

        The sum is over all replicas. A gradient too long for float32 to square counts as not
        finite.

        Args:
          loss: float32 scalar, this replica's share.
          gradients: of all variables that the step moves; None where the loss does not depend on
            one.
          before: from `snapshot`; brought back where the step is skipped.
          step: int64 scalar, number of the step.

        Returns:
          (finite, failed), bool scalars, the same in all replicas: whether to take the step, and
          whether to count it as skipped; a step whose scaled gradient overflows is neither.
        """
        parts = [tf.nn.l2_loss(tf.convert_to_tensor(g)) for g in gradients if g is not None]
        # An input of 1e21 leaves a finite loss, but no finite variance.
        parts += [tf.reduce_sum(v) for v in self._statistics if v.dtype.is_floating]
        everything = loss + tf.add_n([tf.cast(part, tf.float32) for part in parts])
        whole_loss, everything = tf.unstack(collectives.all_sum(tf.stack([loss, everything])))
        finite = tf.math.is_finite(everything)
        tf.cond(finite, lambda: None, lambda: self._put_back(before))
        for optimizer in self._told:
            optimizer.skip_unless(finite)
        failed = ~finite
        if self._loss_scaling:
            # It looks for an overflow itself, as long as there is scale to take off.
            failed &= ~tf.math.is_finite(whole_loss) | (self._loss_scaling.loss_scale <= 1.0)
        self.skipped.assign_add(tf.cast(failed, tf.int64))
        self.last_skipped.assign(tf.where(failed, step, self.last_skipped))
        return finite, failed

    def apply(
        self,
        optimizer: keras.optimizers.Optimizer,
        gradients: list,
        variables: list[tf.Variable],
        finite: tf.Tensor,
    ) -> None:
        """Let an optimizer, or the loss scaling around it, take the step if finite, or skip it."""
        if not variables and not isinstance(optimizer, LazySGD):
            optimizer.iterations.assign_add(1)  # of a frozen backbone: its rate is that of the step
            return
        if optimizer is self._loss_scaling:
            # It looks at these gradients alone, and must skip whatever the guard skips.
            last = max(i for i, g in enumerate(gradients) if g is not None)
            nan = tf.cast(float("nan"), gradients[last].dtype)
            gradients = list(gradients)
            gradients[last] = tf.where(finite, gradients[last], nan)
        elif optimizer not in self._told:
            gradients = [g if g is None else tf.where(finite, g, 0.0) for g in gradients]
        optimizer.apply_gradients(zip(gradients, variables))

    def _put_back(self, before: list[tf.Tensor]) -> None:
        for variable, value in zip(self._statistics, before):
            variable.assign(value)
