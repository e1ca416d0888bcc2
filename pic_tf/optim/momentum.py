"""Momentum outside the learning rate, as the paper has it."""

import tensorflow as tf
import tf_keras as keras


def check_ranges(momentum: float, weight_decay: float) -> None:
    """Raise ValueError unless 0 <= momentum < 1 and weight_decay >= 0."""
    if not 0 <= momentum < 1:
        raise ValueError(f"expected 0 <= momentum < 1, got {momentum}")
    if weight_decay < 0:
        raise ValueError(f"expected weight_decay >= 0, got {weight_decay}")


def create_momentum(optimizer: keras.optimizers.Optimizer, variables: list[tf.Variable]) -> None:
    """Create the state of an optimizer for variables before its first step.

    Args:
      optimizer: of Keras, or of the old kind, as tensorflow-addons' are.
      variables: all that the optimizer moves.
    """
    if hasattr(optimizer, "build"):
        optimizer.build(variables)
    else:  # optimizers of the old kind have no public way to it
        optimizer._create_all_weights(variables)


def move(
    variable: tf.Variable,
    momentum: tf.Variable,
    direction: tf.Tensor,
    rate: tf.Tensor,
    m: float,
    taken: tf.Tensor,
) -> None:
    """Update in place: u <- m u + d, w <- w - eta u; w and u stay where the step is not taken.

    Keras' own SGD multiplies the rate into u, where a changing rate acts differently.

    Args:
      variable: w.
      momentum: u, of its shape.
      direction: d, of its shape; all zeros where the step is not taken.
      rate: eta.
      m: share of u that stays.
      taken: bool scalar.
    """
    rate, m = (tf.cast(x, variable.dtype) for x in (rate, m))
    # TensorFlow's kernel does both in one pass over memory.
    tf.raw_ops.ResourceApplyMomentum(
        var=variable.handle,
        accum=momentum.handle,
        grad=direction,
        lr=tf.where(taken, rate, tf.zeros_like(rate)),
        momentum=tf.where(taken, m, tf.ones_like(m)),
    )
