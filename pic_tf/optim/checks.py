"""Refuse optimizers and settings with which PIC cannot train."""

from typing import Any

import tensorflow as tf
import tf_keras as keras

from pic_tf.optim.lazy_sgd import LazySGD


def check_lazy_sgd(
    optimizer: keras.optimizers.Optimizer,
    strategy: tf.distribute.Strategy,
    jit_compile: bool | None,
) -> None:
    """Check the optimizer of head and rows.

    Args:
      optimizer: what the user gave.
      strategy: of the model.
      jit_compile: whether XLA is to compile the step.

    Raises:
      TypeError: for another optimizer than LazySGD.
      ValueError: for one made outside the strategy's scope, or XLA with several replicas.
    """
    if not isinstance(optimizer, LazySGD):
        raise TypeError(
            f"expected a pic_tf.LazySGD, got {type(optimizer).__name__}: "
            "other optimizers cannot update rows that rest between visits"
        )
    if not strategy.extended.variable_created_in_scope(optimizer.history.products):
        raise ValueError(
            "expected a LazySGD made in the strategy's scope, got one made outside: build it there"
        )
    if jit_compile and strategy.num_replicas_in_sync > 1:
        raise ValueError(
            f"expected jit_compile=False with {strategy.num_replicas_in_sync} replicas, got True: "
            "XLA does not compile what crosses between them (on TPUs the step is always compiled)"
        )


def check_backbone_optimizer(optimizer: Any, of_rows: LazySGD) -> None:
    """Check the backbone's own optimizer.

    Raises:
      TypeError: for one that is not of tf_keras, nor None.
      ValueError: for the optimizer of the rows, which would count every step twice.
    """
    if optimizer is of_rows:
        raise ValueError(
            "expected another optimizer as backbone_optimizer, got that of the rows: leave it out, "
            "and one optimizer moves both"
        )
    kinds = (keras.optimizers.Optimizer, keras.optimizers.legacy.Optimizer)
    if optimizer is not None and not isinstance(optimizer, kinds):
        kind = type(optimizer)
        raise TypeError(
            f"expected a backbone_optimizer of tf_keras, got {kind.__module__}.{kind.__qualname__}"
        )


def check_loss_scaling(
    scaled: bool,
    backbone_optimizer: keras.optimizers.Optimizer | None,
    head: keras.Model,
) -> None:
    """Check that a backbone's own optimizer can skip a step that overflows in float16.

    Args:
      scaled: whether the loss is scaled.
      backbone_optimizer: None where one optimizer moves backbone and head.
      head: projection head; the scale of the loss follows its gradients.

    Raises:
      ValueError: where it cannot, or no gradient of the head tells of the overflow.
    """
    if not scaled or backbone_optimizer is None:
        return
    if not (hasattr(backbone_optimizer, "skip_unless") and head.trainable_variables):
        raise ValueError(
            "expected no backbone_optimizer with mixed_float16, or LARS beside a head that trains, "
            f"got {type(backbone_optimizer).__name__}: use mixed_bfloat16"
        )


def check_unused(settings: dict[str, Any]) -> None:
    """Refuse arguments of Keras' `compile` that would have no effect.

    Raises:
      ValueError: for a loss, its weights, or metrics.
    """
    unused = ("loss", "loss_weights", "metrics", "weighted_metrics")
    if given := [name for name in unused if settings.get(name)]:
        raise ValueError(
            f"expected compile without {', '.join(unused)}, got {', '.join(given)}: "
            "the loss of PIC is Eq. 1, and its metrics are in the logs; others belong in a callback"
        )
