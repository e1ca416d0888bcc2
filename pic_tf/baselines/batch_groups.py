"""Groups of a batch with batch statistics of their own, as if each were on its own device."""

from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

from pic_tf.replicas import collectives


class SplitBatchNormalization(keras.layers.Layer):
    """Batch normalisation of each group of a batch by itself, with the weights of another layer.

    Running statistics move to the mean of what they would be after each group alone, as those of
    replicas do.

    Args:
      layer: `keras.layers.BatchNormalization` of the last axis.
      groups: G, a divisor of the batch.

    Raises:
      ValueError: for a layer of another axis.

    Source: the published code of MoCo for one device (its notebook for CIFAR-10).
    """

    def __init__(self, layer: keras.layers.BatchNormalization, groups: int):
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        if list(layer.axis) != [layer.input_spec.ndim - 1]:
            raise ValueError(
                f"expected batch normalisation of the last axis, got {list(layer.axis)}"
            )
        self.layer, self.groups = layer, groups

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Normalise [b, ..., C], group after group."""
        if not training:
            return self.layer(x, training=False)
        layer, groups, channels, places = self.layer, self.groups, x.shape[-1], x.shape[1:-1]
        gamma = layer.gamma if layer.scale else tf.ones([channels])
        beta = layer.beta if layer.center else tf.zeros([channels])
        # TensorFlow's fast operation, with the groups as channels, [b / G, ..., G C].
        by_group = tf.reshape(x, [groups, -1, *places, channels])
        rank = by_group.shape.rank
        inside = tf.transpose(by_group, [*range(1, rank - 1), 0, rank - 1])
        normalised, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            tf.reshape(inside, [-1, 1, 1, groups * channels]),
            tf.tile(gamma, [groups]),
            tf.tile(beta, [groups]),
            epsilon=layer.epsilon,
            is_training=True,
        )
        if not layer.fused:  # only the fast operation divides by n - 1
            count = tf.cast(tf.size(inside) // (groups * channels), tf.float32)
            variance *= (count - 1.0) / count
        for running, of_groups in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            now = tf.reduce_mean(tf.reshape(of_groups, [groups, channels]), axis=0)
            running.assign(layer.momentum * running + (1.0 - layer.momentum) * now)
        outside = tf.reshape(normalised, [-1, *places, groups, channels])
        by_group = tf.transpose(outside, [rank - 2, *range(rank - 2), rank - 1])
        return tf.reshape(by_group, tf.shape(x))


def in_groups(network: keras.Model, groups: int) -> keras.Model:
    """Give a network whose batch normalisations see each group of a batch by itself.

    Args:
      network: functional or sequential; both share all weights.
      groups: G.

    Returns:
      The network; the given one for one group.

    Raises:
      ValueError: for a subclassed network, or one that normalises another axis than the last.
    """

    def split(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.Model):
            return in_groups(layer, groups)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            return SplitBatchNormalization(layer, groups)
        return layer

    return network if groups == 1 else keras.models.clone_model(network, clone_function=split)


def shuffled(
    embed: Callable[[tf.Tensor], tf.Tensor], views: tf.Tensor, seed: int, step: tf.Tensor
) -> tf.Tensor:
    """Embed views of all replicas in another order, and bring the embeddings back into theirs.

    Args:
      embed: views [b, ...] -> embedding [b, D].
      views: [b, ...], this replica's.
      seed: with the step it decides the order, the same on all replicas.
      step: int64 scalar.

    Returns:
      [b, D], the embedding of each view.

    Source: He et al. 2019, https://arxiv.org/abs/1911.05722, Section 3.3.
    """
    everyone = collectives.all_gather(views)
    key = tf.stack([tf.constant(seed, tf.int64), step])
    order = tf.argsort(tf.random.stateless_uniform(tf.shape(everyone)[:1], key), stable=True)
    here = collectives.own_part(tf.gather(everyone, order))
    embedding = collectives.all_gather(embed(here))
    return collectives.own_part(tf.gather(embedding, tf.argsort(order)))
