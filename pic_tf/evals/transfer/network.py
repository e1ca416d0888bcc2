"""Copy a ResNet into a larger network, and update all of it."""

from collections.abc import Callable, Sequence

import tensorflow as tf
import tf_keras as keras

Config = dict[str, object]


def has_small_stem(backbone: keras.Model) -> bool:
    """Tell whether a ResNet has the stem of small images, behind which maps are 4 times as fine."""
    return all(layer.name != "stem_pool" for layer in backbone.layers)


def last_of_stage(backbone: keras.Model, stage: int) -> keras.layers.Layer:
    """Give the last layer of a stage of blocks."""
    return [layer for layer in backbone.layers if layer.name.startswith(f"stage{stage}_")][-1]


def batch_normalisation(name: str | None = None) -> keras.layers.BatchNormalization:
    """Make batch normalisation over all replicas, with the numbers of the published networks."""
    return keras.layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, synchronized=_several_replicas(), name=name
    )


def synchronised(
    backbone: keras.Model, change: Callable[[str, Config], Config] | None = None
) -> keras.Model:
    """Copy a network with its weights, its batch normalisation over all replicas.

    Args:
      backbone: the network.
      change: (name of a layer, its configuration) -> another one of the same weights.
    """

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            config["synchronized"] = _several_replicas()
        return type(layer).from_config(change(layer.name, config) if change else config)

    copy = keras.models.clone_model(backbone, clone_function=copied)
    copy.set_weights(backbone.get_weights())
    return copy


def decaying(model: keras.Model) -> set:
    """List the kernels and biases, by reference: all that is not of batch normalisation."""
    return {
        variable.ref()
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)
        for variable in layer.trainable_variables
    }


def update(
    model: keras.Model, gradients: Sequence[tf.Tensor], decays: set, weight_decay: float
) -> None:
    """Update all trainable variables along g + lambda w, or g for those that do not decay.

    Args:
      model: compiled with `LazySGD` without decay of its own.
      gradients: g of its trainable variables, the share of this replica; the optimizer adds up.
      decays: as of `decaying`.
      weight_decay: lambda.
    """
    variables = model.trainable_variables
    decay = weight_decay / tf.distribute.get_strategy().num_replicas_in_sync
    directions = [
        gradient + decay * variable if variable.ref() in decays else gradient
        for gradient, variable in zip(gradients, variables)
    ]
    model.optimizer.apply_gradients(zip(directions, variables))


def _several_replicas() -> bool:
    return tf.distribute.get_strategy().num_replicas_in_sync > 1
