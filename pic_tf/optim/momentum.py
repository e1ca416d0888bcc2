"""Momentum outside the learning rate, as the paper has it."""

import math
import numbers
from typing import Any

import tensorflow as tf
import tf_keras as keras


class Fixed:
    """Attribute of an optimizer that stays as it was made, since traced steps hold its value."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, optimizer: Any, owner: type) -> Any:
        if optimizer is None:
            return self
        try:
            return optimizer.__dict__[self._name]
        except KeyError:
            raise AttributeError(self._name) from None

    def __set__(self, optimizer: Any, value: Any) -> None:
        if self._name in optimizer.__dict__:
            raise AttributeError(
                f"expected {self._name} to stay as {type(optimizer).__name__} was made with it, "
                f"got {value}: compile the model with a new one"
            )
        optimizer.__dict__[self._name] = value


def check_ranges(learning_rate: Any, momentum: float, weight_decay: float) -> None:
    """Check the numbers of an optimizer.

    Raises:
      ValueError: unless a rate that is a number is >= 0, 0 <= m < 1 and lambda >= 0.
      TypeError: for a rate that is neither a number nor a schedule of tf_keras.
    """
    schedule = keras.optimizers.schedules.LearningRateSchedule
    if callable(learning_rate) and not isinstance(learning_rate, schedule):
        kind = getattr(learning_rate, "__name__", type(learning_rate).__name__)
        raise TypeError(
            "expected learning_rate to be a number or a LearningRateSchedule of tf_keras, got "
            f"{kind}"
        )
    if isinstance(learning_rate, numbers.Real) and not 0 <= learning_rate < math.inf:
        raise ValueError(f"expected learning_rate >= 0, got {learning_rate}")
    if not 0 <= momentum < 1:
        raise ValueError(f"expected 0 <= momentum < 1, got {momentum}")
    if not 0 <= weight_decay < math.inf:
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


def where_taken(taken: tf.Tensor, direction: tf.Tensor) -> tf.Tensor:
    """Give the direction d of a step, zeros where it is not taken, whatever d is then.

    Args:
      taken: bool scalar.
      direction: d.
    """
    # `tf.where` broadcasts its condition, which takes twice the time of this kernel.
    zeros = tf.zeros_like(direction)
    return tf.raw_ops.Select(condition=tf.identity(taken), x=direction, y=zeros)


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
